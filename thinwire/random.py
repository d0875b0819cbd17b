"""Randomness that two machines agree on: counter-based, keyed, never global.

A key names one stream. Everything drawn from it is derived from raw Philox4x64-10 words on the CPU, so it is the same
on every host, device and supported version of NumPy. Keys are derived, never reused: one stream for a mask *and* the
rounding inside it biases the result.
"""

import hashlib
import math
import struct
import threading
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        round: int | None = None,
        client: int | None = None,
        tensor: int | None = None,
        direction: Direction | None = None,
    ) -> "Key":
        """The key with some coordinates changed; a purpose is appended to the one there is (``mask`` under ``up``)."""
        return Key(
            self.seed,
            self.purpose if purpose is None else f"{self.purpose}/{purpose}",
            self.round if round is None else round,
            self.client if client is None else client,
            self.tensor if tensor is None else tensor,
            self.direction if direction is None else direction,
        )

    def shared(self) -> "Key":
        """The same stream for all clients."""
        return replace(self, client=SHARED)

    def digest(self) -> bytes:
        """Sixteen bytes that identify the stream."""
        body = struct.pack("<qqqq", self.seed, self.round, self.client, self.tensor)
        text = f"{self.direction}\0{self.purpose}".encode()
        return hashlib.blake2b(body + text, digest_size=16, person=b"thinwire-key-v1").digest()

    def words(self, count: int, start: int = 0) -> NDArray[np.uint64]:
        """``count`` raw 64-bit words of the stream from the word ``start`` on, a multiple of four."""
        assert start % 4 == 0, f"word {start} is within a block of four"
        key = np.frombuffer(self.digest(), dtype="<u8").astype(np.uint64)
        return np.asarray(_OWN.at(key, start // 4).random_raw(count), dtype=np.uint64)

    def integer(self, bits: int = 63) -> int:
        """One integer of at most 63 bits, to seed a library that wants a seed."""
        return int(self.words(1)[0]) >> (64 - bits)


class _Own(threading.local):
    """One generator for each thread: to make one takes ten times as long as to set its state, for NumPy seeds it."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.fresh = self.philox.state  # nothing drawn yet

    def at(self, key: NDArray[np.uint64], block: int) -> np.random.Philox:
        """``np.random.Philox(key=key, counter=block)``; until the next call."""
        counter = np.array([block, 0, 0, 0], dtype=np.uint64)
        self.philox.state = {**self.fresh, "state": {"counter": counter, "key": key}}
        return self.philox


_OWN = _Own()


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


NOISE_BLOCK = 65_536
"""Words of rounding noise that share one pair of keys; their 256 kB stay in the cache."""


def noise(key: Key, count: int) -> NDArray[np.uint32]:
    """``count`` words of rounding noise: a counter hash that a GPU computes too (``noise_on``), far faster than Philox.

    For private noise only, which no receiver needs; masks, signs and coins come from the raw words above.
    """
    out = np.empty(count, np.uint32)
    scratch = np.empty(min(count, NOISE_BLOCK), np.uint32)
    for start, word in zip(range(0, count, NOISE_BLOCK), noise_keys(key, count), strict=True):
        noise_block(word, out[start : start + NOISE_BLOCK], scratch)
    return out


def noise_keys(key: Key, count: int) -> NDArray[np.uint64]:
    """The key pair of each block of ``noise(key, count)``, packed in one word."""
    return key.words(-(-count // NOISE_BLOCK))


def noise_block(word: np.uint64, out: NDArray[np.uint32], scratch: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """One block of at most NOISE_BLOCK words into ``out``, with the key pair ``word``; scratch is as long or longer.

    Two multiply-xorshift steps ("lowbias32" by Wellons, "Prospecting for hash functions", 2018) with a key before each.
    """
    shifted = scratch[: len(out)]
    np.bitwise_xor(_counters()[: len(out)], np.uint32(int(word) & 0xFFFFFFFF), out=out)
    np.multiply(out, np.uint32(_FIRST), out=out)
    np.right_shift(out, np.uint32(15), out=shifted)
    np.bitwise_xor(out, shifted, out=out)
    np.add(out, np.uint32(int(word) >> 32), out=out)
    np.multiply(out, np.uint32(_SECOND), out=out)
    np.right_shift(out, np.uint32(16), out=shifted)
    return np.bitwise_xor(out, shifted, out=out)


def noise_on(key: Key, count: int, device: torch.device | str) -> Tensor:
    """The bits of ``noise(key, count)`` as int32, computed on the device."""
    words = noise_keys(key, count).astype("<u8").view("<i4").astype(np.int32).reshape(-1, 2)
    pairs = torch.from_numpy(words).to(device)
    x = torch.from_numpy(_counters().view(np.int32)[: min(count, NOISE_BLOCK)].copy()).to(device)
    x = (x[None, :] ^ pairs[:, :1]) * _signed(_FIRST)
    x = (x ^ ((x >> 15) & 0x1FFFF)) + pairs[:, 1:]  # int32 shifts keep the sign: mask it off
    x = x * _signed(_SECOND)
    return (x ^ ((x >> 16) & 0xFFFF)).reshape(-1)[:count]


_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def _signed(word: int) -> int:
    """The int32 of the same bits."""
    return word - (1 << 32) if word >> 31 else word


@cache
def _counters() -> NDArray[np.uint32]:
    """The counters of a block, mixed once and for all."""
    x = np.arange(NOISE_BLOCK, dtype=np.uint32) * np.uint32(0x9E3779B1)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(_FIRST)
    return np.asarray(x ^ (x >> np.uint32(15)), dtype=np.uint32)
