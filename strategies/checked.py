"""What was checked of a round's uplinks, kept for the decision as far as it is small."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors import Expectation, Payload, decode
from strategies.base import Packet
from thinwire.random import Key

ROOM_BYTES = 32 << 20
"""For vectors and packets together: beyond it, as with any large model, an uplink is decoded again by the step."""


@dataclass(frozen=True)
class Vector:
    """A payload's vector, and all that it was decoded from."""

    payload: Payload
    expectation: Expectation
    key: Key
    vector: Tensor


class Checked:
    """Uplinks are decoded for errors when they arrive, and by the step when all are in: small ones only once.

    Decoding is a function of payload, expectation and key, and a vector is given out for the very payload object that
    it was decoded from, under the same expectation and key, and once: whoever has it may reuse its memory.
    """

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._room_bytes = room_bytes
        self._left_bytes = room_bytes
        self._packets: dict[int, Packet] = {}
        self._vectors: dict[int, Vector] = {}  # by id of the payload, which the vector holds

    def keep(self, client: int, packet: Packet) -> None:
        """The packet of a client, once it has passed; the last one counts."""
        self._packets.pop(client, None)
        if self._takes(sum(payload.size for payload in packet.values())):
            self._packets[client] = packet

    def packet(self, client: int) -> Packet | None:
        """The packet of a client; None where it must be unpacked again."""
        return self._packets.get(client)

    def check(self, payload: Payload, expectation: Expectation, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """``compressors.decode``, whose vector is kept for ``take``. Only to be looked at. Raises WireError."""
        vector = decode(payload, expectation, key, device)
        if vector.device.type == "cpu" and self._takes(vector.numel() * vector.element_size()):
            self._vectors[id(payload)] = Vector(payload, expectation, key, vector)
        return vector

    def take(self, payload: Payload, expectation: Expectation, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """``compressors.decode``, or what ``check`` has kept of it. Raises WireError."""
        kept = self._vectors.pop(id(payload), None)
        if kept is None or (kept.expectation, kept.key) != (expectation, key) or torch.device(device).type != "cpu":
            return decode(payload, expectation, key, device)
        return kept.vector

    def forget(self) -> None:
        """All of it: another attempt begins."""
        self._packets.clear()
        self._vectors.clear()
        self._left_bytes = self._room_bytes

    def _takes(self, size_bytes: int) -> bool:
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True
