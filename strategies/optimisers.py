"""Server optimisers: what the server does with the aggregated direction."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.config import nearest
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout

BLOCK = 1 << 18  # entries stepped at a time: a float64 copy of a whole model would cost the server its memory


@dataclass(frozen=True)
class Optimiser(ABC):
    """A step of the server's model along -direction; its memory is a state value like any other."""

    @abstractmethod
    def begin(self, layout: Layout) -> Any:
        """The memory before round 1."""

    @abstractmethod
    def step(self, x: Tensor, direction: Tensor, memory: Any, layout: Layout) -> tuple[Tensor, Any]:
        """The next model, of x's dtype and device, and the next memory; ``direction`` may be float64."""

    def check(self, layout: Layout) -> None:
        """Refuse a layout that the optimiser cannot step on. Raises ConfigError."""
        return


@dataclass(frozen=True)
class SGD(Optimiser):
    """``x <- prox(x - rate G, rate)``; with rate 1 and updates as directions, plain federated averaging."""

    rate: float = 1.0
    prox: Callable[[Tensor, float], Tensor] | None = None  # (point, rate): projection, soft threshold

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate = {self.rate} must be positive and finite")

    def begin(self, layout: Layout) -> None:
        """No memory."""

    def step(self, x: Tensor, direction: Tensor, memory: None, layout: Layout) -> tuple[Tensor, None]:
        """One step; the product is taken in the direction's precision."""
        moved = torch.empty_like(x)
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            moved[part] = x[part] - (self.rate * direction[part]).to(x)
        return (moved if self.prox is None else self.prox(moved, self.rate)), None


@dataclass(frozen=True)
class TorchMemory:
    """What a torch optimiser keeps of each tensor of the layout: ((name, value), ...)."""

    tensors: tuple[tuple[tuple[str, Any], ...], ...] = ()


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
        for parameter, kept in zip(parameters, memory.tensors, strict=False):  # none before the first step
            optimiser.state[parameter] = {name: _copy(value) for name, value in kept}
        optimiser.step()
        return x, TorchMemory(tuple(tuple(optimiser.state[parameter].items()) for parameter in parameters))

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


def build_optimiser(options: Mapping[str, Any], where: str = "optimiser") -> Optimiser:
    """The optimiser of ``{"name": ..., "rate": ..., ...}``; ``sgd`` of rate 1 without options.

    ``rate`` is torch's ``lr``; every other key is passed to the class of ``torch.optim`` as it is.
    Raises ConfigError on an unknown name or key, naming the nearest known one, and on a bad value.
    """
    values = {key.replace("-", "_"): value for key, value in options.items()}
    name = str(values.pop("name", "sgd")).lower()
    if name not in torch_optimisers():
        raise ConfigError(f"unknown {where} {name!r}{nearest(name, torch_optimisers())}")
    if "lr" in values and "rate" in values:
        raise ConfigError(f"{where}.lr and {where}.rate are the same; give one of them")
    if "lr" in values:
        values["rate"] = values.pop("lr")
    kind = torch_optimisers()[name]
    known = {*inspect.signature(kind).parameters, "rate"} - {"params", "lr"}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {f'{where}.{key}'!r}{nearest(key, known)}")
    if name == "sgd":
        values.setdefault("rate", 1.0)
    try:
        if name == "sgd" and set(values) == {"rate"}:
            return SGD(float(values["rate"]))
        return _tried(TorchOptimiser(kind, tuple(sorted(_torch_options(values).items()))))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where} {name!r}: {error}") from None


def _torch_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """``rate`` as ``lr``, lists as tuples."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return {("lr" if key == "rate" else key): value for key, value in plain.items()}


def _tried(optimiser: TorchOptimiser) -> TorchOptimiser:
    """The optimiser after one step on a small matrix, so that a bad value is found when the run is built."""
    layout = Layout((Entry("probe", (2, 2)),))
    optimiser.step(torch.ones(4), torch.ones(4), optimiser.begin(layout), layout)
    return optimiser
