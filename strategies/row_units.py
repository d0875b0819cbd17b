"""A linear model whose rows are gone through in a given order: what orders are measured on without any host."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from strategies.base import Local
from strategies.problems import LinearModel
from thinwire.random import Key


class RowUnits:
    """An oracle of ``strategies.problems`` whose units are microbatches of consecutive rows, all equally long.

    ``passes`` of plain gradient steps make one ``local``; ``sample`` is one unit's gradient.
    """

    def __init__(self, model: LinearModel, size: int = 1, passes: int = 1) -> None:
        if len(model.targets) % size:
            raise ValueError(f"{len(model.targets)} rows are no multiple of size = {size}")
        self.model = model
        self.size = size
        self.passes = passes
        self._window: Sequence[int] | None = None
        self._observe: Callable[[Tensor], None] = lambda gradient: None

    def units(self, unit: str) -> int:
        """How many microbatches there are."""
        return len(self.model.targets) // self.size

    def window(self, unit: str, work: str) -> int:
        """All of them for local training, one for a minibatch."""
        return self.passes * self.units(unit) if work == "steps" else 1

    @contextmanager
    def following(self, unit: str, window: Sequence[int], observe: Callable[[Tensor], None]) -> Iterator[None]:
        """Go through the units of ``window``."""
        self._window, self._observe = window, observe
        try:
            yield
        finally:
            self._window, self._observe = None, lambda gradient: None

    def full(self, x: Tensor) -> Tensor:
        """The gradient over all rows."""
        return self.model.full(x)

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The gradient of the window's first unit, or of one that the key draws."""
        gradient = self._of(x, self._window[0] if self._window else key.integer() % self.units("batch"))
        if self._window:
            self._observe(gradient)
        return gradient

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        """A gradient step per unit of the window."""
        assert self._window is not None, "rows are gone through in a given order only"
        z = x
        for unit in self._window:
            gradient = self._of(z, unit)
            self._observe(gradient)
            z = z - self.model.rate * (gradient if correction is None else gradient + correction)
        return Local(x - z, len(self._window), self.model.rate)

    def _of(self, x: Tensor, unit: int) -> Tensor:
        rows = torch.arange(unit * self.size, (unit + 1) * self.size)
        return self.model.at_rows(x, rows)
