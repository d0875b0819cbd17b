"""Randomness that two machines agree on: counter-based, keyed, never global.

A key names one stream. Everything drawn from it is derived from raw Philox4x64-10 words on the CPU, so it is the same on
every host, device and supported version of NumPy. Keys are derived, never reused: one stream for a mask *and* the
rounding inside it biases the result.
"""

import hashlib
import math
import struct
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SHARED = -1
"""The client index of randomness that all nodes share."""

Direction = Literal["", "up", "down"]


@dataclass(frozen=True)
class Key:
    """The name of one random stream: (run seed, purpose, round, client or SHARED, tensor, direction)."""

    seed: int
    purpose: str = ""
    round: int = 0
    client: int = SHARED
    tensor: int = -1
    direction: Direction = ""

    def at(
        self,
        purpose: str | None = None,
        *,
        round: int | None = None,  # noqa: A002  the field's own name
        client: int | None = None,
        tensor: int | None = None,
        direction: Direction | None = None,
    ) -> "Key":
        """The key with some coordinates changed; a purpose is appended to the one there is (``mask`` under ``up``)."""
        return replace(
            self,
            purpose=self.purpose if purpose is None else f"{self.purpose}/{purpose}",
            round=self.round if round is None else round,
            client=self.client if client is None else client,
            tensor=self.tensor if tensor is None else tensor,
            direction=self.direction if direction is None else direction,
        )

    def shared(self) -> "Key":
        """The same stream for all clients."""
        return replace(self, client=SHARED)

    def digest(self) -> bytes:
        """Sixteen bytes that identify the stream."""
        body = struct.pack("<qqqq", self.seed, self.round, self.client, self.tensor)
        text = f"{self.direction}\0{self.purpose}".encode()
        return hashlib.blake2b(body + text, digest_size=16, person=b"thinwire-key-v1").digest()

    def words(self, count: int) -> NDArray[np.uint64]:
        """The first ``count`` raw 64-bit words of the stream."""
        philox = np.random.Philox(key=np.frombuffer(self.digest(), dtype="<u8").astype(np.uint64))
        return np.asarray(philox.random_raw(count), dtype=np.uint64)

    def integer(self, bits: int = 63) -> int:
        """One integer of at most 63 bits, to seed a library that wants a seed."""
        return int(self.words(1)[0]) >> (64 - bits)


def coin(key: Key, probability: float) -> bool:
    """True with the given probability; the same answer on every node."""
    return int(key.words(1)[0]) < math.floor(probability * 2.0**64)


def uniforms(key: Key, count: int) -> NDArray[np.float64]:
    """Independent uniforms in [0, 1) with 53 random bits each."""
    return (key.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(key: Key, population: int, count: int) -> NDArray[np.int64]:
    """``count`` distinct indices of ``range(population)``, uniform, ascending (int64)."""
    if not 0 <= count <= population:
        raise ValueError(f"cannot choose {count} of {population}")
    if count > population // 2:
        keep = np.ones(population, dtype=bool)
        keep[_distinct(key, population, population - count)] = False
        return np.flatnonzero(keep)
    return np.sort(_distinct(key, population, count))


def _distinct(key: Key, population: int, count: int) -> NDArray[np.int64]:
    """The first ``count`` distinct values of the words reduced modulo ``population``; count <= population / 2."""
    drawn = count + count // 2 + 16
    while True:
        values = (key.words(drawn) % np.uint64(max(population, 1))).astype(np.int64)
        unique, first = np.unique(values, return_index=True)
        if len(unique) >= count:
            return unique[np.argsort(first, kind="stable")[:count]]
        drawn *= 2


def permutation(key: Key, count: int) -> NDArray[np.int64]:
    """A uniform permutation of ``range(count)``: the order of raw words, ties by index."""
    return np.argsort(key.words(count), kind="stable").astype(np.int64)
