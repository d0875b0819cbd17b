"""What a participant needs around it: the task behind an oracle, the method, the federation."""

from typing import Protocol

import torch
from torch import Tensor

from strategies.base import Federation, Oracle
from strategies.bundle import Bundle, Replica


class Workplace(Protocol):
    """One client's place in a run."""

    @property
    def bundle(self) -> Bundle:
        """The method and its sidecars."""
        ...

    @property
    def federation(self) -> Federation:
        """The federation as a client knows it, without weights."""
        ...

    @property
    def template(self) -> Replica:
        """A replica of the right structure."""
        ...

    @property
    def oracle(self) -> Oracle:
        """All that a method knows of the task."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the oracle computes, and so where the states it works on belong."""
        ...

    @property
    def examples(self) -> int:
        """Number of training examples."""
        ...

    def enter(self, buffers: Tensor | None) -> None:
        """Begin an answer: the model takes the replica's buffers."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers of the last answer."""
        ...

    def frozen_digest(self) -> bytes:
        """Digest of the frozen parameters."""
        ...

    def load_frozen(self, packed: bytes) -> None:
        """Take the server's frozen parameters. Raises WireError when they are not this model's."""
        ...

    def evaluate(self, x: Tensor, buffers: Tensor | None) -> tuple[int, dict[str, float]]:
        """Number of held-out examples and the metrics on them."""
        ...


class Places(Protocol):
    """Opens the places of a run (a ``client.workshop.Workshop``)."""

    def workplace(self, index: int) -> Workplace:
        """The place of the client with that index in the roster."""
        ...
