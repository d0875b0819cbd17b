"""One step of local training on the flat vector of a model."""

from typing import Any

import torch

from client.flat import FlatModel
from client.local import SGD, LocalOptions, known_optimisers
from thinwire.errors import ConfigError


class Stepper:
    """One round's optimiser: a call takes a step along ``flat.gradient``. Raises ConfigError for options it lacks."""

    def __init__(self, options: LocalOptions, flat: FlatModel) -> None:
        self._options = options
        self._flat = flat
        self._velocity = torch.zeros_like(flat.vector) if options.momentum else None
        plain = options.optimiser.lower() == SGD  # on the flat vector: no cost per tensor
        self._torch = None if plain else _torch_optimiser(options, flat)

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


def _torch_optimiser(options: LocalOptions, flat: FlatModel) -> torch.optim.Optimizer:
    kind: Any = known_optimisers()[options.optimiser.lower()]
    given = {"momentum": options.momentum, "weight_decay": options.weight_decay}
    try:
        optimiser: torch.optim.Optimizer = kind(
            flat.parameters, lr=options.rate, **{name: value for name, value in given.items() if value}
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"local.optimiser = {options.optimiser!r} does not take these options: {error}") from None
    return optimiser
