"""What a run in the pure loop did: its errors and its bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

DIVERGED = 1e30
"""An error above this ends a run."""


@dataclass(frozen=True)
class Trace:
    """What a run did. ``errors[t]`` is the error after t rounds; bytes are per round."""

    errors: tuple[float, ...]
    uplink_bytes: tuple[int, ...]  # of all clients together
    downlink_bytes: tuple[int, ...]  # to all listeners together
    clients: int
    model: Tensor
    contents: tuple[tuple[int, int], ...]  # uplink and downlink bytes without framing, of all, from the start on

    @property
    def diverged(self) -> bool:
        """Whether the error left all bounds."""
        return not self.errors[-1] < DIVERGED

    def rounds_to(self, target: float) -> int | None:
        """The first round after which the error is at most ``target``; None if it never was."""
        return next((t for t, error in enumerate(self.errors) if error <= target), None)

    def uplink_to(self, target: float) -> float:
        """Uplink bytes per client until then; infinite if never."""
        return self._bytes_to(self.uplink_bytes, target)

    def downlink_to(self, target: float) -> float:
        """Downlink bytes per client until then; infinite if never."""
        return self._bytes_to(self.downlink_bytes, target)

    def _bytes_to(self, counted: Sequence[int], target: float) -> float:
        rounds = self.rounds_to(target)
        return math.inf if rounds is None else sum(counted[:rounds]) / self.clients
