"""Rand-k: entries drawn from a key that the receiver has too, so that only values travel."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.powers import Floats
from compressors.scope import (
    SCOPES,
    Indices,
    Part,
    Scope,
    check_options,
    dense_spans,
    least_share,
    parts,
    put,
    runs_of,
    with_dense,
)
from compressors.values import (
    Values,
    alpha_of,
    check_format,
    decode_values,
    encode_values,
    least_value_bits,
    magnify,
    omega_of,
)
from thinwire.layout import Layout
from thinwire.random import Key, choose

PARAMETERS = struct.Struct("<dBB")  # fraction; index in SCOPES; 1 if all clients share the mask


@dataclass(frozen=True)
class RandK(Compressor):
    """Keep k of d entries at random. Unbiased: d/k times the entries, omega = (d/k)(1 + w) - 1, exact for w = 0.

    w is the omega of the values' random rounding: 0 for "fp32", 2^-16 for "bf16", 1/8 for "natural"; 0.0004, 0.11 and
    5.2 for "8-bit", "4-bit" and "2-bit". With ``biased`` the entries travel as they are, rounded to the nearest:
    contractive with alpha = k/d times the values' alpha, and no longer unbiased. k and d are those of the worst tensor;
    under scope "tensor" tensors below 256 entries travel whole.

    With ``shared`` all clients keep the same entries: their mean stays k-sparse, but its error no longer falls with
    their number. An entry whose d/k-fold overflows is clamped to the largest finite number.

    Source: Wangni et al., "Gradient sparsification", NeurIPS 2018; Konecny and Richtarik, "Randomized distributed mean
    estimation", 2018.
    """

    name: ClassVar[str] = "rand-k"
    fraction: float = 0.01  # share of entries kept, in (0, 1]
    values: Values = "bf16"  # how kept values travel; "fp32" is unrounded (8 bytes in a float64 run)
    scope: Scope = "tensor"  # k of every tensor, or of the whole vector
    shared: bool = False  # one mask for all clients of a round
    biased: bool = False  # unscaled: contractive instead of unbiased

    def __post_init__(self) -> None:
        check_options(self.fraction, self.scope)
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Every format of values, both scopes, both kinds of mask, both classes."""
        return (
            cls(0.1),
            cls(0.25, "fp32", "global", shared=True),
            cls(0.5, "4-bit"),
            cls(0.25, "fp32", biased=True),
            cls(0.1, "natural", "global", biased=True),
        )

    def omega(self, layout: Layout) -> float | None:
        """(d/k)(1 + w) - 1 of the worst tensor; None if biased."""
        if self.biased:
            return None
        return (1 + omega_of(self.values)) / least_share(layout, self.fraction, self.scope) - 1

    def alpha(self, layout: Layout) -> float | None:
        """k/d of the worst tensor times the values' alpha, if biased; exact for "fp32"."""
        return least_share(layout, self.fraction, self.scope) * alpha_of(self.values) if self.biased else None

    def worst(self, layout: Layout) -> Tensor | None:
        """Any vector without rounding: here, one magnitude. (Small dense tensors lose nothing, so none with those.)"""
        exact = self.values == "fp32" and not dense_spans(layout, self.scope)
        return torch.ones(layout.numel, dtype=torch.float64) if exact else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the values; their places are in the key."""
        runs = runs_of(parts(layout, self.fraction, self.scope), layout, self.scope)
        description, dtype = encoded.payload.parameters[PARAMETERS.size :], encoded.payload.dtype
        return least_value_bits(description, encoded.payload.streams[0], sum(runs), dtype, runs)

    @property
    def linear(self) -> bool:
        """With one mask for all clients and unrounded values."""
        return self.shared and self.values == "fp32"

    def support(self, layout: Layout, key: Key) -> Indices | None:
        """The shared mask and the dense tensors."""
        if not self.shared:
            return None
        return with_dense(_mask(parts(layout, self.fraction, self.scope), key, True), layout, self.scope)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The kept values in ascending order of their indices, then the dense tensors; no index travels."""
        check_input(x, layout)
        x = x.detach()
        pieces = parts(layout, self.fraction, self.scope)
        positions = with_dense(_mask(pieces, key, self.shared), layout, self.scope)
        kept = x[torch.from_numpy(positions).to(x.device)].cpu().numpy()
        if not self.biased:
            _magnify(kept, pieces)
        rounding, runs = None if self.biased else key.at("rounding"), runs_of(pieces, layout, self.scope)
        description, stream, values = encode_values(kept, self.values, rounding, runs)
        parameters = PARAMETERS.pack(self.fraction, SCOPES.index(self.scope), self.shared) + description
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, (stream,))
        return Encoded(payload, put(positions, values, layout.numel, x.device))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Zeros with the values at the places that the sender's key gives."""
        require(len(payload.streams) == 1, f"rand-k of {len(payload.streams)} streams; expected 1")
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
    require(len(payload.streams) <= 1, f"rand-k of {len(payload.streams)} streams")
    require(len(payload.parameters) >= PARAMETERS.size, f"rand-k of {len(payload.parameters)} bytes of parameters")
    fraction, scope_index, shared = PARAMETERS.unpack_from(payload.parameters)
    require(0 < fraction <= 1, f"fraction {fraction}; allowed: above 0 and at most 1")
    require(scope_index < len(SCOPES) and shared < 2, f"unknown scope {scope_index} or mask {shared}")
    scope = SCOPES[scope_index]
    pieces = parts(layout, fraction, scope)
    return with_dense(_mask(pieces, key, bool(shared)), layout, scope), runs_of(pieces, layout, scope)


def _mask(pieces: list[Part], key: Key, shared: bool) -> Indices:
    """The kept indices of all parts, ascending."""
    mask = (key.shared() if shared else key).at("mask")
    chosen = [choose(mask.at(tensor=p.tensor), p.stop - p.start, p.keep) + p.start for p in pieces]
    return np.concatenate([np.zeros(0, np.int64), *chosen])


def _magnify(kept: Floats, pieces: list[Part]) -> None:
    """Multiply the values of each part by d/k, in place, within the finite range."""
    start = 0
    for part in pieces:
        kept[start : start + part.keep] = magnify(kept[start : start + part.keep], 1 / part.share)
        start += part.keep
