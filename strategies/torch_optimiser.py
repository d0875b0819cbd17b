"""The optimisers of ``torch.optim``, their memory taken out and put back as a state: on the server and on a client."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from strategies.optimiser import Optimiser
from thinwire.errors import ConfigError
from thinwire.layout import Layout


@dataclass(frozen=True)
class TorchMemory:
    """What a torch optimiser keeps of each tensor that it steps on: ((name, value), ...)."""

    tensors: tuple[tuple[tuple[str, Any], ...], ...] = ()


def recall(optimiser: torch.optim.Optimizer, memory: TorchMemory) -> None:
    """Give a new optimiser the memory of another; the memory's own tensors are left as they are."""
    if memory.tensors:  # none before the first step
        kept = {index: {name: _copy(value) for name, value in own} for index, own in enumerate(memory.tensors)}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": kept})  # moves them to the parameters' device


def memory_of(optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> TorchMemory:
    """What the optimiser keeps of its parameters; shared with it, so it must not step again."""
    return TorchMemory(tuple(tuple(optimiser.state[parameter].items()) for parameter in parameters))


@dataclass(frozen=True)
class TorchOptimiser(Optimiser):
    """An optimiser of ``torch.optim``, stepping views of the flat model, one per tensor of the layout."""

    kind: type[torch.optim.Optimizer]
    options: tuple[tuple[str, Any], ...]  # as its constructor takes them

    def begin(self, layout: Layout) -> TorchMemory:
        """Nothing kept yet."""
        return TorchMemory()

    def step(self, x: Tensor, direction: Tensor, memory: TorchMemory, layout: Layout) -> tuple[Tensor, TorchMemory]:
        """One step with the memory given back exactly as it was left."""
        x, gradient = x.clone(), direction.to(x)
        parameters = [nn.Parameter(view) for view in layout.unflatten(x).values()]
        for parameter, view in zip(parameters, layout.unflatten(gradient).values(), strict=True):
            parameter.grad = view
        optimiser = self.kind(parameters, **dict(self.options))
        recall(optimiser, memory)
        optimiser.step()
        return x, memory_of(optimiser, parameters)

    def check(self, layout: Layout) -> None:
        """Refuse shapes that the optimiser does not take (Muon wants matrices)."""
        try:
            self.kind([nn.Parameter(torch.empty(entry.shape)) for entry in layout.entries], **dict(self.options))
        except ValueError as error:
            raise ConfigError(f"optimiser {self.kind.__name__.lower()!r} cannot train this model: {error}") from None


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@cache
def torch_optimisers() -> dict[str, type[torch.optim.Optimizer]]:
    """Lower-case name to class: those of ``torch.optim`` that step on a dense gradient without a closure."""
    kinds = [value for value in vars(torch.optim).values() if inspect.isclass(value)]
    steppers = [kind for kind in kinds if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer]
    unfit = {"LBFGS", "SparseAdam"}
    return {kind.__name__.lower(): kind for kind in steppers if kind.__name__ not in unfit}
