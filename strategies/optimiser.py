"""The contract of a server optimiser, and plain SGD."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strategies.prox import Prox
from thinwire.layout import Layout

BLOCK = 1 << 18  # entries stepped at a time: a float64 copy of a whole model would cost the server its memory


@dataclass(frozen=True)
class Optimiser(ABC):
    """A step of the server's model along -direction; its memory is a state value like any other."""

    @abstractmethod
    def begin(self, layout: Layout) -> Any:
        """The memory before round 1."""

    @abstractmethod
    def step(self, x: Tensor, direction: Tensor, memory: Any, layout: Layout) -> tuple[Tensor, Any]:
        """The next model, of x's dtype and device, and the next memory, which may reuse the one given.

        ``direction`` may be float64.
        """

    def check(self, layout: Layout) -> None:
        """Refuse a layout that the optimiser cannot step on. Raises ConfigError."""
        return


@dataclass(frozen=True)
class SGD(Optimiser):
    """``x <- prox(x - rate G, rate)``; with rate 1 and updates as directions, plain federated averaging."""

    rate: float = 1.0  # learning rate; where clients send gradients and none is named, it is the local one
    prox: Prox | Callable[[Tensor, float], Tensor] | None = None  # (point, rate): projection, soft threshold

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate = {self.rate} must be positive and finite")

    def begin(self, layout: Layout) -> None:
        """No memory; the prox must know the model's tensors."""
        if isinstance(self.prox, Prox):
            self.prox.check(layout)

    def step(self, x: Tensor, direction: Tensor, memory: None, layout: Layout) -> tuple[Tensor, None]:
        """One step; the product is taken in the direction's precision."""
        moved = torch.empty_like(x)
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            moved[part] = x[part] - (self.rate * direction[part]).to(x)
        if isinstance(self.prox, Prox):
            return self.prox(moved, self.rate, layout), None
        return (moved if self.prox is None else self.prox(moved, self.rate)), None
