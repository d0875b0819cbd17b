"""JL: the first entries of every chunk after a random rotation; linear, and good values for few bits."""

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.hadamard import Run, cut, rotate, rotate_back, rotated_size
from compressors.powers import check_exponent
from compressors.scope import check_options, dense_spans, parts, with_dense
from compressors.sketching import check_size, shift_of, shifted
from compressors.values import Values, check_format, decode_values, encode_values, least_value_bits, omega_of
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<dhB")  # fraction; shift; 1 if all clients share the rotation
NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class JL(Compressor):
    """Rotate at random, keep k of d entries times d/k, rotate back: a fast Johnson-Lindenstrauss sketch. Unbiased.

    omega = (d/k)(1 + w) - 1, exact for w = 0: with orthonormal R and the selection S of k rows the error is
    |d/k R^T S^T S R x - x|^2, and E R^T S^T S R = k/d; Gaussian projections have (d+1)/k. d and k are those of the
    chunks of 128 to 4,096 entries into which each tensor is cut, k = ceil(fraction * d) of each, and the worst counts.
    w is the omega of the values' random rounding: 0 for "fp32", 2^-16 for "bf16", 1/8 for "natural"; 0.0004, 0.11 and
    5.2 for "8-bit", "4-bit" and "2-bit". The omega of Rand-k, but with values that look Gaussian whatever the vector,
    and errors that spread over the chunk. Tensors below 256 entries are sent whole.

    With ``shared`` all clients rotate alike: with "fp32" the sum of their sketches is the sketch of the sum. An entry
    beyond the finite range is clamped.

    Source: Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", SIAM J. Computing 2009; Konecny and
    Richtarik, "Randomized distributed mean estimation", 2018 (with a rotation).
    """

    name: ClassVar[str] = "jl"
    fraction: float = 0.01  # rotated entries that travel, in (0, 1]
    values: Values = "bf16"  # how they travel; "fp32" is unrounded (8 bytes in a float64 run)
    shared: bool = False  # one rotation for all clients of a round

    def __post_init__(self) -> None:
        check_options(self.fraction, "tensor")
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and exact, one's own rotation and a shared one."""
        return (cls(0.1), cls(0.25, "fp32", shared=True))

    @property
    def linear(self) -> bool:
        """With one rotation for all clients and unrounded values."""
        return self.shared and self.values == "fp32"

    def omega(self, layout: Layout) -> float:
        """(d/k)(1 + w) - 1 of the worst chunk."""
        ratios = (run.rows / _kept(run, self.fraction) for run in _runs(layout))
        return max(ratios, default=1.0) * (1 + omega_of(self.values)) - 1

    def worst(self, layout: Layout) -> Tensor | None:
        """Any vector within the worst chunk, if that is not padded: here, one magnitude."""
        runs = _runs(layout)
        if self.values != "fp32" or not runs:
            return None
        run, x = max(runs, key=lambda run: run.rows / _kept(run, self.fraction)), torch.zeros(layout.numel)
        x[run.start : run.stop] = 1
        return x.double() if run.stop - run.start == run.size else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the values; the rotation is in the key."""
        runs = _lengths(layout, self.fraction)
        description, dtype = encoded.payload.parameters[PARAMETERS.size :], encoded.payload.dtype
        return least_value_bits(description, encoded.payload.streams[0], sum(runs), dtype, runs)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The kept entries chunk by chunk, then the dense tensors."""
        check_input(x, layout)
        x, own = x.detach().contiguous(), key.shared() if self.shared else key
        shift, runs = shift_of(x), _runs(layout)
        x = shifted(x, -shift)
        rotated = rotate(x, runs, own.at("rotation"))
        chunks = [
            (chunk * (run.rows / _kept(run, self.fraction))).reshape(-1)
            for run, chunk in _kept_of(rotated, runs, self.fraction)
        ]
        dense = torch.from_numpy(with_dense(NONE, layout, "tensor")).to(x.device)
        kept, lengths = torch.cat([*chunks, x[dense]]).cpu().numpy(), _lengths(layout, self.fraction)
        description, stream, values = encode_values(kept, self.values, key.at("rounding"), lengths)
        parameters = PARAMETERS.pack(self.fraction, shift, self.shared) + description
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, (stream,))
        found = torch.from_numpy(values).to(x.device)
        return Encoded(payload, _estimate(found, layout, self.fraction, shift, own))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The kept entries among zeros, rotated back."""
        require(len(payload.streams) == 1, f"jl of {len(payload.streams)} streams; expected 1")
        require(len(payload.parameters) >= PARAMETERS.size, f"jl of {len(payload.parameters)} bytes of parameters")
        fraction, shift, shared = PARAMETERS.unpack_from(payload.parameters)
        require(0 < fraction <= 1, f"fraction {fraction}; allowed: above 0 and at most 1")
        require(shared < 2, f"unknown rotation {shared}")
        check_exponent(shift, payload.dtype)
        lengths, description = _lengths(layout, fraction), payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[0], sum(lengths), payload.dtype, lengths)
        check_size(values)
        own = key.shared() if shared else key
        return _estimate(torch.from_numpy(values).to(device), layout, fraction, shift, own)


def _runs(layout: Layout) -> tuple[Run, ...]:
    """The chunks of all tensors that are not dense."""
    return cut((part.start, part.stop) for part in parts(layout, 1, "tensor"))


def _kept(run: Run, fraction: float) -> int:
    """How many rotated entries of a chunk travel."""
    return math.ceil(fraction * run.rows)


def _lengths(layout: Layout, fraction: float) -> list[int]:
    """How many of the values that travel belong to each tensor."""
    sparse = [
        sum(run.count * run.columns * _kept(run, fraction) for run in cut([(part.start, part.stop)]))
        for part in parts(layout, 1, "tensor")
    ]
    return sparse + [stop - start for start, stop in dense_spans(layout, "tensor")]


def _kept_of(rotated: Tensor, runs: tuple[Run, ...], fraction: float) -> list[tuple[Run, Tensor]]:
    """Of each run the entries that travel, a view: blocks x chunks of a block x entries of a chunk."""
    blocks = [rotated[run.place : run.place + run.size].view(run.count, run.rows, run.columns) for run in runs]
    return [(run, block[:, : _kept(run, fraction)].transpose(1, 2)) for run, block in zip(runs, blocks, strict=True)]


def _estimate(values: Tensor, layout: Layout, fraction: float, shift: int, key: Key) -> Tensor:
    """The vector: rotated back, with the dense tensors as they are, times 2^shift."""
    runs, start = _runs(layout), 0
    rotated = torch.zeros(rotated_size(runs), dtype=values.dtype, device=values.device)
    for _, chunks in _kept_of(rotated, runs, fraction):
        chunks.copy_(values[start : start + chunks.numel()].view(chunks.shape))
        start += chunks.numel()
    out = rotate_back(rotated, runs, key.at("rotation"), layout.numel)
    for first, last in dense_spans(layout, "tensor"):
        out[first:last] = values[start : start + last - first]
        start += last - first
    return shifted(out, shift)
