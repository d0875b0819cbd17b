"""A method and its sidecars, in the same packets and meters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compressors import Payload
from strategies import remembering
from strategies.base import Asks, Downlink, Federation, Method, Oracle, Packet, Round
from strategies.buffers import Buffers, Sidecar
from thinwire.errors import WireError
from thinwire.layout import Layout

METHOD = "method"


@dataclass(frozen=True)
class Replica:
    """What all nodes agree on: the method's part, and one tensor per sidecar."""

    method: Any
    sidecars: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """The method and its sidecars behind the calls of a method; payloads are ``method.NAME`` and ``SIDECAR.NAME``."""

    method: Method
    sidecars: tuple[Sidecar, ...] = ()

    @staticmethod
    def of(method: Method, buffers: Layout | None) -> "Bundle":
        """With the buffers of BatchNorm and the like as a sidecar, when there are any."""
        return Bundle(method, (Buffers(buffers),) if buffers is not None else ())

    def begin(self, x0: Tensor, buffers: Tensor | None, federation: Federation) -> tuple[Replica, Any]:
        """Replica and server state before round 1."""
        shared, server = self.method.begin(x0, federation)
        return Replica(shared, tuple(s.begin(_given(buffers)) for s in self.sidecars)), server

    def respond(self, replica: Replica, private: Any, oracle: Oracle, round: Round) -> tuple[Any, Packet]:
        """On a client: next private state and the whole uplink."""
        after, uplink = remembering.respond(self.method, replica.method, private, oracle, round)
        packet = _under(METHOD, uplink)
        for sidecar, value in zip(self.sidecars, replica.sidecars, strict=True):
            left: Tensor = getattr(oracle, sidecar.name)
            packet |= _under(sidecar.name, sidecar.collect(value, left, round))
        return after, packet

    def step(
        self, replica: Replica, server: Any, uplinks: Sequence[tuple[int, Packet]], round: Round
    ) -> tuple[Any, Downlink]:
        """On the server: next server state and the whole downlink; ``uplinks`` may be read several times."""
        server, downlink = self.method.step(replica.method, server, _only(METHOD, uplinks), round)
        packet = _under(METHOD, downlink.broadcast)
        for sidecar, value in zip(self.sidecars, replica.sidecars, strict=True):
            packet |= _under(sidecar.name, sidecar.combine(value, _only(sidecar.name, uplinks), round))
        personal = {client: _under(METHOD, own) for client, own in downlink.personal.items()}
        return server, Downlink(packet, personal)

    def apply(self, replica: Replica, downlink: Packet, round: Round) -> Replica:
        """On every node: the next replica."""
        shared = self.method.apply(replica.method, _part(METHOD, downlink), round)
        pairs = zip(self.sidecars, replica.sidecars, strict=True)
        return Replica(shared, tuple(s.apply(value, _part(s.name, downlink), round) for s, value in pairs))

    def validate(self, uplink: Packet, round: Round) -> None:
        """Decode an uplink for nothing but errors. Raises WireError."""
        known = {METHOD, *(sidecar.name for sidecar in self.sidecars)}
        for name in uplink:
            if name.partition(".")[0] not in known:
                raise WireError(f"unexpected payload {name!r} in an uplink")
        self.method.validate(_part(METHOD, uplink), round)
        for sidecar in self.sidecars:
            sidecar.validate(_part(sidecar.name, uplink), round)

    def most_bytes(self, replica: Replica, federation: Federation) -> int:
        """The largest packed uplink that is looked at: twice what its vectors take uncompressed, and a little more."""
        method = federation.layout.numel * max(1, len(self.method.uplink))
        beside = sum(vector.numel() for vector in replica.sidecars)
        return 2 * federation.dtype.itemsize * (method + beside) + (1 << 20)

    def asks(self, replica: Replica, server: Any, number: int) -> Asks | tuple[int, ...]:
        """Who must answer."""
        return self.method.asks(replica.method, server, number)

    def join(self, replica: Replica, mirror: Tensor | None = None) -> Any:
        """The private state of a newcomer."""
        return self.method.join(replica.method, mirror)

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """The mirror after an applied uplink."""
        return self.method.advance(mirror, _part(METHOD, uplink), round)

    def model(self, replica: Replica, server: Any = None) -> tuple[Tensor, Tensor | None]:
        """The flat model and its flat buffers."""
        return self.method.model(replica.method, server), (replica.sidecars[0] if self.sidecars else None)


def _given(buffers: Tensor | None) -> Tensor:
    assert buffers is not None, "the model has buffers, so they must be given"
    return buffers


def _under(owner: str, packet: Packet) -> dict[str, Payload]:
    return {f"{owner}.{name}": payload for name, payload in packet.items()}


def _part(owner: str, packet: Packet) -> Packet:
    return {name[len(owner) + 1 :]: payload for name, payload in packet.items() if name.startswith(f"{owner}.")}


def _only(owner: str, uplinks: Iterable[tuple[int, Packet]]) -> Iterable[tuple[int, Packet]]:
    return ((client, _part(owner, packet)) for client, packet in uplinks)
