"""Alone: an estimator that follows every client by itself, for whoever aggregates by rules of their own.

An estimator estimates the weighted mean of the clients' directions. A strategy that takes a median, or the client that
is nearest to its neighbours, needs each direction: then every client is a federation of one, with a seed of its own, so
that clients err independently.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from compressors import Compressor
from strategies.base import Federation, Packet, Round
from strategies.estimator import Estimator
from thinwire.random import Key


@dataclass(frozen=True)
class Alone(Estimator):
    """One client's part of ``inner``; what it aggregates is that client's direction."""

    inner: Estimator

    def own(self, round: Round) -> Round:
        """The round of the federation that ``round.client`` is by itself."""
        everybody = round.federation
        seed = Key(everybody.seed, "alone", client=round.client).integer()
        return replace(round, client=0, federation=replace(everybody, clients=1, seed=seed, weights=(1.0,)))

    def begin(self, x0: Tensor, federation: Federation) -> Any:
        """Of one client."""
        return self.inner.begin(x0, replace(federation, clients=1, weights=(1.0,)))

    def join(self, x: Tensor, mirror: Tensor | None = None) -> Any:
        """As inside."""
        return self.inner.join(x, mirror)

    def respond(self, direction: Tensor, private: Any, round: Round) -> tuple[Any, Packet]:
        """As inside, in the client's own federation."""
        return self.inner.respond(direction, private, self.own(round))

    def aggregate(self, server: Any, uplinks: Iterable[tuple[int, Packet]], round: Round) -> tuple[Any, Tensor]:
        """The direction of the one client that answered, float64."""
        ((client, uplink),) = uplinks
        return self.inner.aggregate(server, [(0, uplink)], self.own(replace(round, client=client)))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """As inside."""
        return self.inner.uplink

    @property
    def optional(self) -> frozenset[str]:
        """As inside."""
        return self.inner.optional

    @property
    def exclusive(self) -> frozenset[str]:
        """As inside."""
        return self.inner.exclusive

    @property
    def mirrored(self) -> bool:
        """As inside."""
        return self.inner.mirrored

    def mirror(self, private: Any) -> Tensor | None:
        """As inside."""
        return self.inner.mirror(private)

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """As inside, in the client's own federation."""
        return self.inner.advance(mirror, uplink, self.own(round))

    def rebuild(self, server: Any, mirrors: Iterable[Tensor], federation: Federation) -> Any:
        """From the mirror of the one client."""
        return self.inner.rebuild(server, mirrors, replace(federation, clients=1, weights=(1.0,)))

    def check(self, federation: Federation, participation: float) -> None:
        """As inside."""
        self.inner.check(federation, participation)
