"""Bernoulli sparsification: every entry is kept with one probability, drawn from a key that the receiver has too."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import value_bits
from compressors.scope import SCOPES, Indices, Scope, check_options, dense_spans, parts, put, runs_in, with_dense
from compressors.values import BITS, Values, check_format, decode_values, encode_values, magnify, omega_of
from thinwire.blocks import each_block
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<QBB")  # probability times 2^32; index in SCOPES; 1 if all clients share the mask
UNIT = 1 << 32
BLOCK = 1 << 16  # entries drawn at a time, so that their words stay in the cache


@dataclass(frozen=True)
class Bernoulli(Compressor):
    """Keep every entry with probability p, times 1/p. Unbiased with omega = (1 + w)/p - 1, exact for w = 0.

    w is the omega of the values' random rounding: 0 for "fp32", 2^-16 for "bf16", 1/8 for "natural"; 0.0004, 0.11 and
    5.2 for "8-bit", "4-bit" and "2-bit". p is a multiple of 2^-32. Rand-k has the same omega and sends a fixed number
    of values; here entries are independent of each other, as some theory asks, and the number varies. Under scope
    "tensor" tensors below 256 entries are sent whole. With ``shared`` all clients keep the same entries.

    Source: Khirirat, Feyzmahdavian, Johansson, "Distributed learning with compressed gradients", 2018; Wangni et al.,
    "Gradient sparsification", NeurIPS 2018.
    """

    name: ClassVar[str] = "bernoulli"
    probability: float = 0.01  # of every entry to be kept, in (0, 1]
    values: Values = "bf16"  # how kept values travel; "fp32" is unrounded (8 bytes in a float64 run)
    scope: Scope = "tensor"  # "tensor": small tensors whole; "global": all entries alike
    shared: bool = False  # one mask for all clients of a round

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability = {self.probability}; allowed: above 0 and at most 1")
        check_options(1, self.scope)
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and exact, both scopes, both kinds of mask."""
        return (cls(0.1), cls(0.25, "fp32", "global", shared=True))

    @property
    def linear(self) -> bool:
        """With one mask for all clients and unrounded values."""
        return self.shared and self.values == "fp32"

    def omega(self, layout: Layout) -> float:
        """(1 + w)/p - 1."""
        return (1 + omega_of(self.values)) * UNIT / _threshold(self.probability) - 1

    def worst(self, layout: Layout) -> Tensor | None:
        """Any vector without rounding: here, one magnitude. (Small dense tensors lose nothing, so none with those.)"""
        exact = self.values == "fp32" and not dense_spans(layout, self.scope)
        return torch.ones(layout.numel, dtype=torch.float64) if exact else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """The entropy of the values; their places are in the key. None for values in few bits."""
        return None if self.values in BITS else value_bits(encoded.decoded[encoded.decoded != 0].cpu().numpy())

    def support(self, layout: Layout, key: Key) -> Indices | None:
        """The shared mask and the dense tensors."""
        if not self.shared:
            return None
        return with_dense(_mask(layout, self.scope, _threshold(self.probability), key.shared()), layout, self.scope)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The kept values in ascending order of their indices, then the dense tensors; no index travels."""
        check_input(x, layout)
        x, threshold = x.detach(), _threshold(self.probability)
        mask = _mask(layout, self.scope, threshold, key.shared() if self.shared else key)
        positions = with_dense(mask, layout, self.scope)
        kept = x[torch.from_numpy(positions).to(x.device)].cpu().numpy()
        kept[: len(mask)] = magnify(kept[: len(mask)], UNIT / threshold)
        runs = runs_in(mask, layout, self.scope)
        description, stream, values = encode_values(kept, self.values, key.at("rounding"), runs)
        parameters = PARAMETERS.pack(threshold, SCOPES.index(self.scope), self.shared) + description
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, (stream,))
        return Encoded(payload, put(positions, values, layout.numel, x.device))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Zeros with the values at the places that the sender's key gives."""
        require(len(payload.streams) == 1, f"bernoulli of {len(payload.streams)} streams; expected 1")
        positions, runs = _places(payload, layout, key)
        description = payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[0], len(positions), payload.dtype, runs)
        return put(positions, values, layout.numel, device)

    @staticmethod
    def positions(payload: Payload, layout: Layout, key: Key) -> Indices:
        """The mask of the key, then the dense tensors."""
        return _places(payload, layout, key)[0]


def _places(payload: Payload, layout: Layout, key: Key) -> tuple[Indices, list[int]]:
    """Where the values stand, and how many follow each other in each tensor."""
    require(len(payload.streams) <= 1, f"bernoulli of {len(payload.streams)} streams")
    require(len(payload.parameters) >= PARAMETERS.size, f"bernoulli of {len(payload.parameters)} parameter bytes")
    threshold, scope_index, shared = PARAMETERS.unpack_from(payload.parameters)
    require(0 < threshold <= UNIT, f"probability {threshold} / 2^32; allowed: above 0 and at most 1")
    require(scope_index < len(SCOPES) and shared < 2, f"unknown scope {scope_index} or mask {shared}")
    scope = SCOPES[scope_index]
    mask = _mask(layout, scope, threshold, key.shared() if shared else key)
    return with_dense(mask, layout, scope), runs_in(mask, layout, scope)


def _threshold(probability: float) -> int:
    """The probability in units of 2^-32, at least one."""
    return max(1, round(probability * UNIT))


def _mask(layout: Layout, scope: str, threshold: int, key: Key) -> Indices:
    """The kept indices, ascending: those whose half of a raw word, the lower one first, is below the threshold."""
    if threshold == UNIT:
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(p.start, p.stop) for p in parts(layout, 1, scope))])
    chosen = [np.zeros(0, np.int64)]
    for part in parts(layout, 1, scope):
        mask, length = key.at("mask", tensor=part.tensor), part.stop - part.start

        def work(start: int, stop: int, mask: Key = mask, offset: int = part.start) -> Indices:
            words = mask.words(-(-(stop - start) // 2), start // 2).astype("<u8", copy=False).view("<u4")
            return np.flatnonzero(words[: stop - start] < np.uint32(threshold)) + (start + offset)

        chosen += each_block(length, BLOCK, work)
    return np.concatenate(chosen)
