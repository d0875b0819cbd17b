"""Adaptive sparsification: large entries as they are, small ones by chance and then by their sign alone."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import log2_binomial
from compressors.drawing import draw, limit_of
from compressors.powers import Floats
from compressors.scope import (
    SCOPES,
    Indices,
    Part,
    Scope,
    check_options,
    check_sparse,
    least_share,
    parts,
    put,
    runs_in,
    with_dense,
)
from compressors.values import Values, check_format, decode_values, encode_values, least_value_bits, omega_of
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.indices import pack_indices, unpack_indices

PARAMETERS = struct.Struct("<BII")  # index in SCOPES; number of entries sent by value; number sent by sign


@dataclass(frozen=True)
class Adaptive(Compressor):
    """Keep entry i with probability p_i = min(1, |x_i| / t), where t makes the p_i of a tensor sum to k. Unbiased.

    A kept entry of p_i < 1 is x_i / p_i, plus or minus t: one bit, while t travels once. Entries of p_i = 1 travel as
    values. omega = d/k - 1 + w, exact without w for entries of one magnitude and far less where they differ: for a
    Gaussian 0.64 d/k - 1. w is the omega of the values' random rounding: 0 for "fp32", 2^-16 for "bf16", 1/8 for
    "natural"; 0.0004, 0.11 and 5.2 for "8-bit", "4-bit" and "2-bit". k = max(1, round(fraction * size)); the worst
    tensor counts, and under scope "tensor" tensors below 256 entries are sent whole. How many entries travel varies.

    Of all sparsifiers that are unbiased and keep k entries in the mean this one errs least.

    Source: Wangni, Wang, Liu, Zhang, "Gradient sparsification for communication-efficient distributed optimization",
    NeurIPS 2018.
    """

    name: ClassVar[str] = "adaptive"
    reproducible: ClassVar[bool] = False  # t is a sum in floating point
    fraction: float = 0.01  # expected share of entries sent, in (0, 1]
    values: Values = "bf16"  # how entries of p_i = 1 travel; "fp32" is unrounded (8 bytes in a float64 run)
    scope: Scope = "tensor"  # t of every tensor, or of the whole vector

    def __post_init__(self) -> None:
        check_options(self.fraction, self.scope)
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Few and many entries by value, rounded and exact, both scopes."""
        return (cls(0.05), cls(0.5, "fp32", "global"))

    def omega(self, layout: Layout) -> float:
        """d/k - 1 + w, of the worst tensor."""
        return 1 / least_share(layout, self.fraction, self.scope) - 1 + omega_of(self.values)

    def worst(self, layout: Layout) -> Tensor | None:
        """One magnitude within the tensor of the least share, none elsewhere; exact where nothing travels by value."""
        pieces = parts(layout, self.fraction, self.scope)
        if not pieces:
            return None
        part, x = min(pieces, key=lambda part: part.share), torch.zeros(layout.numel, dtype=torch.float64)
        x[part.start : part.stop] = 1
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """Which entries travel how, a bit for every sign, t of every tensor, and the entropy of the values."""
        payload, pieces = encoded.payload, parts(layout, self.fraction, self.scope)
        _, by_value, by_sign = PARAMETERS.unpack_from(payload.parameters)
        population = sum(part.stop - part.start for part in pieces)
        places = log2_binomial(population, by_value) + log2_binomial(population - by_value, by_sign)
        runs = runs_in(unpack_indices(payload.streams[1], by_value, layout.numel), layout, self.scope)
        description = payload.parameters[PARAMETERS.size :]
        values = least_value_bits(description, payload.streams[4], sum(runs), payload.dtype, runs)
        return places + values + float(by_sign + 8 * len(payload.streams[0]))

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """Streams: t of every tensor; indices by value; indices by sign; signs; values, with the dense tensors last."""
        check_input(x, layout)
        x, pieces = x.detach().contiguous(), parts(layout, self.fraction, self.scope)
        limits = np.zeros(len(pieces), DTYPE_NAMES[x.dtype])
        whole, drawn = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for number, part in enumerate(pieces):
            piece = x[part.start : part.stop]
            limits[number] = limit_of(piece, part.keep)
            found = draw(piece, float(limits[number]), key.at("mask", tensor=part.tensor))
            whole.append(found[0] + part.start)
            drawn.append(found[1] + part.start)
        by_value, by_sign = np.concatenate(whole), np.concatenate(drawn)
        positions = with_dense(by_value, layout, self.scope)
        kept = x[torch.from_numpy(positions).to(x.device)].cpu().numpy()
        negative = (x[torch.from_numpy(by_sign).to(x.device)] < 0).cpu().numpy()
        runs = runs_in(by_value, layout, self.scope)
        description, stream, values = encode_values(kept, self.values, key.at("rounding"), runs)
        parameters = PARAMETERS.pack(SCOPES.index(self.scope), len(by_value), len(by_sign)) + description
        places = (pack_indices(by_value, layout.numel), pack_indices(by_sign, layout.numel))
        signs = np.packbits(negative).tobytes()
        streams = (limits.astype(limits.dtype.newbyteorder("<")).tobytes(), *places, signs, stream)
        signed = _signed(limits, negative, by_sign, pieces)
        decoded = put(np.append(positions, by_sign), np.concatenate([values, signed]), layout.numel, x.device)
        return Encoded(Payload(self.name, DTYPE_NAMES[x.dtype], parameters, streams), decoded)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Values and signed t at their places, zeros elsewhere."""
        require(len(payload.streams) == 5, f"adaptive of {len(payload.streams)} streams; expected 5")
        require(len(payload.parameters) >= PARAMETERS.size, f"adaptive of {len(payload.parameters)} parameter bytes")
        scope_index, values_sent, signs_sent = PARAMETERS.unpack_from(payload.parameters)
        require(scope_index < len(SCOPES), f"unknown scope {scope_index}")
        scope = SCOPES[scope_index]
        pieces, kind = parts(layout, 1, scope), np.dtype(payload.dtype)
        require(len(payload.streams[0]) == len(pieces) * kind.itemsize, f"{len(payload.streams[0])} bytes of limits")
        limits = np.frombuffer(payload.streams[0], kind.newbyteorder("<")).astype(kind)
        require(bool((np.isfinite(limits) & (limits >= 0)).all()), "limit that is negative or not finite")
        by_value = unpack_indices(payload.streams[1], values_sent, layout.numel)
        by_sign = unpack_indices(payload.streams[2], signs_sent, layout.numel)
        check_sparse(by_value, layout, scope)
        check_sparse(by_sign, layout, scope)
        require(not _meet(by_value, by_sign), "entry both by value and by sign")
        negative = _unpack_signs(payload.streams[3], signs_sent)
        positions, runs = with_dense(by_value, layout, scope), runs_in(by_value, layout, scope)
        description = payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[4], len(positions), payload.dtype, runs)
        signed = _signed(limits, negative, by_sign, pieces)
        return put(np.append(positions, by_sign), np.concatenate([values, signed]), layout.numel, device)


def _signed(limits: Floats, negative: NDArray[np.bool_], by_sign: Indices, pieces: list[Part]) -> Floats:
    """Plus or minus the limit of its tensor, for each entry sent by sign."""
    counts = np.diff(np.searchsorted(by_sign, [0, *(part.stop for part in pieces)]))
    magnitudes: NDArray[Any] = np.repeat(limits, counts)
    return np.where(negative, -magnitudes, magnitudes)


def _unpack_signs(data: bytes, count: int) -> NDArray[np.bool_]:
    require(len(data) == -(-count // 8), f"{len(data)} bytes of {count} signs")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    require(not bits[count:].any(), "padding that is not zero behind the signs")
    return bits[:count].astype(np.bool_)


def _meet(first: Indices, second: Indices) -> bool:
    """Whether two ascending sequences have an element in common."""
    if not len(first):
        return False
    places = np.minimum(np.searchsorted(first, second), len(first) - 1)
    return bool((first[places] == second).any())
