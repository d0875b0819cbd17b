"""One step of local training on the flat vector of a model."""

from typing import Any

import torch
from torch import Tensor

from client.flat import FlatModel
from client.local import SGD, LocalOptions
from strategies.optimisers import torch_options
from strategies.torch_optimiser import TorchMemory, memory_of, recall, torch_optimisers
from thinwire.errors import ConfigError


class Stepper:
    """One round's optimiser: a call takes a step along ``flat.gradient``. Raises ConfigError for options it lacks.

    With ``local.keep`` it goes on with the ``memory`` of an earlier one, which is left as it is.
    """

    def __init__(self, options: LocalOptions, flat: FlatModel, memory: Tensor | TorchMemory | None = None) -> None:
        self._options = options
        self._flat = flat
        plain = options.optimiser.lower() == SGD and not options.options  # on the flat vector: no cost per tensor
        self._torch = None if plain else _torch_optimiser(options, flat)
        self._velocity = torch.zeros_like(flat.vector) if plain and options.momentum else None
        if self._torch is not None and isinstance(memory, TorchMemory):
            recall(self._torch, memory)
        elif self._velocity is not None and isinstance(memory, Tensor):
            self._velocity.copy_(memory)

    def __call__(self) -> None:
        """``x <- x - rate v`` with ``v <- momentum v + gradient + weight_decay x``, or torch's step."""
        if self._torch is not None:
            self._torch.step()
            return
        direction = self._flat.gradient
        if self._options.weight_decay:
            direction.add_(self._flat.vector, alpha=self._options.weight_decay)
        if self._velocity is not None:
            direction = self._velocity.mul_(self._options.momentum).add_(direction)
        self._flat.vector.sub_(direction, alpha=self._options.rate)

    @property
    def memory(self) -> Tensor | TorchMemory | None:
        """What the next round's stepper goes on with; None where nothing is to be kept. Ends this one."""
        if not self._options.keep:
            return None
        return self._velocity if self._torch is None else memory_of(self._torch, self._flat.parameters)


def _torch_optimiser(options: LocalOptions, flat: FlatModel) -> torch.optim.Optimizer:
    kind: Any = torch_optimisers()[options.optimiser.lower()]
    given = {"momentum": options.momentum, "weight_decay": options.weight_decay}
    further = torch_options({name.replace("-", "_"): value for name, value in options.options.items()})
    try:
        optimiser: torch.optim.Optimizer = kind(
            flat.parameters, lr=options.rate, **{name: value for name, value in given.items() if value}, **further
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"local.optimiser = {options.optimiser!r} does not take these options: {error}") from None
    return optimiser
