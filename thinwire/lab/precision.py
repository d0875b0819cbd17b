"""Single precision on the wire: what clients and server exchange is float32, as in a deployed run.

The problems compute in float64. Without this, a dense message would cost 8 bytes a value, and every gain of a rounding
compressor would be twice what a user sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from strategies.base import Local, Oracle
from strategies.theory import Constants
from thinwire.lab.experiment import Measured
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class SingleOracle:
    """An oracle of float32 vectors around one of float64."""

    inner: Oracle

    def full(self, x: Tensor) -> Tensor:
        """The inner gradient, rounded once."""
        return self.inner.full(x.double()).float()

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The same of a minibatch."""
        return self.inner.sample(x.double(), key).float()

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        """Local training in float64; its update is rounded once."""
        local = self.inner.local(x.double(), key, None if correction is None else correction.double())
        return replace(local, update=local.update.float())


@dataclass(frozen=True)
class Single:
    """A problem whose messages are float32; its error is still measured in float64."""

    inner: Measured

    @property
    def layout(self) -> Layout:
        """That of the inner problem."""
        return self.inner.layout

    @property
    def x0(self) -> Tensor:
        """The start, rounded."""
        return self.inner.x0.to(torch.float32)

    @cached_property
    def oracles(self) -> Sequence[Oracle]:
        """The inner ones, rounded."""
        return tuple(SingleOracle(oracle) for oracle in self.inner.oracles)

    @property
    def constants(self) -> Constants:
        """Those of the inner problem."""
        return self.inner.constants

    def error(self, x: Tensor) -> float:
        """That of the inner problem, at a float32 point."""
        return self.inner.error(x.double())
