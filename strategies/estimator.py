"""The uplink half of a descent method: from the clients' directions to one aggregated direction."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor, registry
from strategies.base import Federation, Packet, Round
from strategies.theory import Constants, Theory
from thinwire.errors import ConfigError

UPDATE = "update"
"""The name of the payload that carries a client's compressed direction."""

BLOCK = 1 << 18
"""Entries that are summed at a time: a float64 copy of a whole model would cost the server its memory."""


@dataclass(frozen=True)
class Estimator(ABC):
    """How the server estimates G = sum p_i D_i from compressed uplinks, D_i being client i's direction of descent.

    ``Descent`` joins it to a server optimiser and a downlink. The parts of the contract mean what they mean in
    ``Method``: ``respond`` never consumes its private state, ``advance`` is portable arithmetic, every option has a
    default. The server's sums are float64, in ascending client index, one uplink decoded at a time.
    """

    name: ClassVar[str]
    compressor: Compressor

    @abstractmethod
    def begin(self, x0: Tensor, federation: Federation) -> Any:
        """The server's part of the state before round 1."""

    @abstractmethod
    def join(self, x: Tensor, mirror: Tensor | None = None) -> Any:
        """The private state of a new or reset client; with ``mirror``, its mirrored part is that."""

    @abstractmethod
    def respond(self, direction: Tensor, private: Any, round: Round) -> tuple[Any, Packet]:
        """On a client: the next private state and the uplink of its direction."""

    @abstractmethod
    def aggregate(
        self,
        server: Any,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[Any, Tensor]:
        """On the server: the next server part and the aggregated direction, float64."""

    @property
    @abstractmethod
    def uplink(self) -> Mapping[str, Compressor]:
        """The payload names that an uplink carries and the compressor of each."""

    @property
    def optional(self) -> frozenset[str]:
        """The payloads that an uplink may lack."""
        return frozenset()

    @property
    def exclusive(self) -> frozenset[str]:
        """Payloads of which every uplink carries exactly one."""
        return frozenset()

    @property
    def mirrored(self) -> bool:
        """Whether private states have a part that the server mirrors."""
        return False

    def mirror(self, private: Any) -> Tensor | None:
        """The mirrored part of a private state (h_i, g_i), or None."""
        return None

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """The mirror after an applied uplink, with the bits of ``respond``."""
        raise AssertionError(f"{type(self).__name__} mirrors nothing")

    def rebuild(self, server: Any, mirrors: Iterable[Tensor], federation: Federation) -> Any:
        """The server part with what it derives from the mirrors summed anew, in ascending index."""
        return server

    @property
    def sends_directions(self) -> bool:
        """Whether an uplink alone tells the client's direction, as far as its compressor lets it."""
        return False

    def direction(self, uplink: Packet, round: Round) -> Tensor | None:
        """The direction in an uplink of ``round.client``; None unless ``sends_directions``."""
        return None

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse what theory refuses, naming what would fit. Raises ConfigError."""
        return

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The paper's step with a dense downlink and full gradients, and its promise; as ``Method.theory``."""
        raise ConfigError(f"method {self.name} has no theory for its step; tune optimiser.rate")


@dataclass(frozen=True)
class Gathered:
    """The weighted sum of one payload over the clients that answered."""

    total: Tensor  # sum of p_i m_i, float64
    weight: float  # sum of p_i
    replies: int
    askable: int  # n, of whom the cohort was drawn
    members: int  # those and the drained ones: all that have a weight

    def average(self) -> Tensor:
        """The weighted mean over those who answered, weights renormalised; zero when nobody did."""
        return self.total if self.replies == self.members or not self.weight else self.total / self.weight

    def sampled(self) -> Tensor:
        """``sum (p_i / pi) m_i``, pi = replies/n: an unbiased estimate of the sum over all; zero when nobody did."""
        return self.total * (self.askable / self.replies) if self.replies else self.total


def gather(
    uplinks: Iterable[tuple[int, Packet]],
    compressor: Compressor,
    round: Round,
    name: str = UPDATE,
) -> Gathered:
    """Decode and add up one payload of every uplink, each when it is reached. Raises WireError."""
    return gather_all(uplinks, {name: compressor}, round)[name]


def gather_all(
    uplinks: Iterable[tuple[int, Packet]],
    compressors: Mapping[str, Compressor],
    round: Round,
    optional: frozenset[str] = frozenset(),
) -> Mapping[str, Gathered]:
    """The same for several payloads of each uplink in one pass; an ``optional`` one is summed over those that have it.

    Raises WireError.
    """
    federation = round.federation
    totals = {name: torch.zeros(federation.layout.numel, dtype=torch.float64) for name in compressors}
    weights, replies = dict.fromkeys(compressors, 0.0), dict.fromkeys(compressors, 0)
    for client, packet in uplinks:
        share = federation.weights[client]
        for name, compressor in compressors.items():
            if name in packet or name not in optional:
                _add(totals[name], round.decode(packet, name, compressor, round.key(name, "up", client)), share)
                weights[name], replies[name] = weights[name] + share, replies[name] + 1
    counts = len(federation.askable), len(federation.members)
    return {name: Gathered(totals[name], weights[name], replies[name], *counts) for name in compressors}


def _add(total: Tensor, message: Tensor, share: float) -> None:
    """``total += share * message`` in float64."""
    for start in range(0, total.numel(), BLOCK):
        part = slice(start, start + BLOCK)
        total[part] += message[part].to(total).mul_(share)


def weighted_sum(vectors: Iterable[Tensor], federation: Federation) -> Tensor:
    """``sum p_i v_i`` over the whole roster, float64, in ascending index: what is derived from mirrors.

    A vector without weight is not looked at: whoever was put out of the run may have left anything behind.
    """
    total = torch.zeros(federation.layout.numel, dtype=torch.float64)
    for share, vector in zip(federation.weights, vectors, strict=True):
        if share:
            total += share * vector.to("cpu", torch.float64)
    return total


def names_of(fits: Callable[[Compressor], bool]) -> str:
    """The names of the compressors that fit in at least one of their forms, for an error message."""
    return ", ".join(sorted(name for name, kind in registry().items() if any(fits(form) for form in kind.examples())))
