"""How low-rank factors travel: coefficients and bases of all matrices of a vector in one payload.

A matrix M is carried as the sum of outer products of its coefficients C and a basis B: M ~ C B^T with B on the side of
the columns, or M^T ~ C B^T with B on the side of the rows. The sender rounds the basis first and then fits the
coefficients to what is left of it: C B^T is the orthogonal projection onto a rounded basis, and only the rounding of C
adds to its error.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from compressors.base import DTYPE_NAMES, DTYPES, Encoded, Payload, check_input, require
from compressors.bounds import entropy_bits
from compressors.factor_plan import Plan
from compressors.matrices import Matricisation, Side, on_columns
from compressors.outer import assemble
from compressors.powers import Floats, exponent_above
from compressors.values import FORMATS as SENT
from compressors.values import alpha_of, decode_values, encode_values, least_value_bits, omega_of
from thinwire.layout import Layout
from thinwire.random import Key

Factors = Literal["bf16", "fp32", "8-bit"]
FORMATS: tuple[Factors, ...] = get_args(Factors)

SAFE = 40
"""Matrices whose largest entry lies between 2^-40 and 2^40 are factored as they are, others times a power of two."""


def check_factors(values: str) -> None:
    """Raise ValueError unless it is one of FORMATS."""
    if values not in FORMATS:
        raise ValueError(f"values = {values!r}; allowed: {', '.join(FORMATS)}")


def kept_share(values: Factors, rank: int) -> float:
    """The share of what a basis captures that is left, in expectation, once all is rounded.

    Let w be the omega of rounding, d = 1 - alpha. The basis B, rounded at random, adds w |C|^2 to the error at the C
    before it, and the fit can only gain; if it was spanned by singular vectors v and rounded to the nearest, it keeps
    sin^2(v, B) <= d. Rounding C to the nearest adds at most d |C|^2 times the largest eigenvalue of B^T B, and |C|^2
    is at most what is captured over the smallest. B is orthonormal but for its rounding, at most twice that to the
    nearest, so those eigenvalues are within (1 +- e)^2, e^2 = 4 d r.
    """
    lost = 1 - alpha_of(values)
    spread = 2 * math.sqrt(lost * rank)
    condition = ((1 + spread) / (1 - spread)) ** 2
    return (1 - max(lost, omega_of(values))) * (1 - condition * lost)


@dataclass(frozen=True)
class Matrices:
    """The matrices of one vector, ready to be factored."""

    x: Tensor  # the vector, contiguous and without gradient
    matricisation: Matricisation
    values: tuple[Tensor | None, ...]  # every matrix times 2^-exponent, so that squares are in range; None: it is zero
    exponents: tuple[int, ...]

    @staticmethod
    def of(x: Tensor, layout: Layout, matricisation: Matricisation) -> "Matrices":
        """The matrices of a vector that a compressor is given. Raises NonFinite."""
        check_input(x, layout)
        x = x.detach().contiguous()
        scaled = [_in_range(block.of(x)) for block in matricisation.blocks]
        return Matrices(x, matricisation, tuple(v for v, _ in scaled), tuple(e for _, e in scaled))


def _in_range(matrix: Tensor) -> tuple[Tensor | None, int]:
    low, high = (float(value) for value in torch.aminmax(matrix))
    exponent = exponent_above(max(-low, high))
    if low == high == 0:
        return None, 0
    if abs(exponent) <= SAFE:
        return matrix, 0
    half = exponent // 2
    return matrix * 2.0**-half * 2.0 ** (half - exponent), exponent


def encode_factors(
    codec: str,
    matrices: Matrices,
    bases: Sequence[Tensor],
    values: Factors,
    rounding: Key | None = None,
    side: Side = on_columns,
) -> Encoded:
    """A payload of bases, n x r each (m x r on the side of the rows) with r = 0 for a zero matrix, and what fits them.

    Bases are rounded at random with the key ``rounding``, to the nearest without, and all else to the nearest.
    """
    name, shapes = DTYPE_NAMES[matrices.x.dtype], [(basis.shape[0], basis.shape[1]) for basis in bases]
    description, stream, rounded = encode_values(_flat(bases, name), values, rounding, _runs(shapes))
    encoded = encode_projections(codec, matrices, _cut(rounded, shapes, matrices.x.device), side, values)
    payload = encoded.payload
    parameters, streams = payload.parameters + description, (*payload.streams, stream)
    return Encoded(Payload(codec, name, parameters, streams), encoded.decoded)


def decode_factors(payload: Payload, layout: Layout, device: torch.device | str, side: Side = on_columns) -> Tensor:
    """The vector of a payload of ``encode_factors``. Raises WireError."""

    def sent(plan: Plan) -> list[Tensor]:
        return _cut(_stream(payload, 4, plan, side), plan.shapes(side, of_bases=True), device)

    return decode_projections(payload, layout, device, side, sent, streams=5)


def encode_projections(
    codec: str,
    matrices: Matrices,
    bases: Sequence[Tensor],
    side: Side,
    values: Factors,
    gains: Sequence[float] | None = None,
    rounding: Key | None = None,
) -> Encoded:
    """A payload of the coefficients that fit given bases, times ``gains``, and of the dense tensors.

    Rounded at random with the key ``rounding``, to the nearest without.
    """
    x, blocks, name = matrices.x, matrices.matricisation.blocks, DTYPE_NAMES[matrices.x.dtype]
    fitted, shifts = [], []
    for i, (block, matrix, basis) in enumerate(zip(blocks, matrices.values, bases, strict=True)):
        coefficients, shift = basis.new_zeros(block.columns if side(block) else block.rows, 0), 0
        if matrix is not None and basis.shape[1]:
            found = fit(matrix.T if side(block) else matrix, basis) * (1.0 if gains is None else gains[i])
            shift = exponent_above(float(found.abs().max()))
            coefficients, shift = (found * 2.0**-shift).to(x.dtype), shift + matrices.exponents[i]
        fitted.append(coefficients)
        shifts.append(shift)
    shapes = [(coefficients.shape[0], coefficients.shape[1]) for coefficients in fitted]
    plan = Plan(matrices.matricisation, tuple(rank for _, rank in shapes), tuple(shifts))
    spans = plan.matricisation.dense
    dense, runs = _flat([x[start:stop] for start, stop in spans], name), [stop - start for start, stop in spans]
    first = encode_values(dense, values, None if rounding is None else rounding.at("dense"), runs)
    second = encode_values(_flat(fitted, name), values, rounding, _runs(shapes))
    payload = Payload(codec, name, first[0] + second[0], (*plan.pack(), first[1], second[1]))
    return Encoded(payload, _build(plan, _cut(second[2], shapes, x.device), bases, side, first[2], x))


def decode_projections(
    payload: Payload,
    layout: Layout,
    device: torch.device | str,
    side: Side,
    bases: Callable[[Plan], Sequence[Tensor]],
    streams: int = 4,
) -> Tensor:
    """The vector of a payload whose ``bases`` the receiver can make, once all else is checked. Raises WireError."""
    require(len(payload.streams) == streams, f"{len(payload.streams)} streams; {payload.codec} has {streams}")
    plan = Plan.read(payload, layout)
    dense, flat = _stream(payload, 2, plan, side), _stream(payload, 3, plan, side)
    known = bases(plan)
    coefficients = _cut(flat, plan.shapes(side, of_bases=False), device)
    like = torch.empty(layout.numel, dtype=DTYPES[payload.dtype], device=device)
    return _build(plan, coefficients, known, side, dense, like)


def fit(matrix: Tensor, basis: Tensor) -> Tensor:
    """The C (float64) of least |matrix - C basis^T|."""
    wide = basis.double()
    norms = wide.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    gram = (wide / norms).T @ (wide / norms)
    gram.diagonal().add_(torch.finfo(torch.float64).eps)  # for a column of zeros
    images = (matrix @ basis).double() / norms
    solved: Tensor = torch.linalg.solve(gram, images.T)
    coefficients: Tensor = solved.T / norms
    return coefficients


def least_bits_of(payload: Payload, layout: Layout, side: Side = on_columns) -> float:
    """Of the dense values, the coefficients and, where they travel, the bases: the entropy of symbols or exponents.

    Signs and mantissas of factors are noise, and cost what they are long.
    """
    plan = Plan.read(payload, layout)
    return sum(_least_bits(payload, index, plan, side) for index in range(2, len(payload.streams)))


def _least_bits(payload: Payload, index: int, plan: Plan, side: Side) -> float:
    description, stream, runs = _column(payload, index, plan, side)
    form, count = SENT[description[0]], sum(runs)
    if form not in ("bf16", "fp32"):
        return least_value_bits(description, stream, count, payload.dtype, runs)
    values = decode_values(description, stream, count, payload.dtype, runs)
    noise = 8 if form == "bf16" else np.finfo(payload.dtype).nmant + 1
    return entropy_bits(np.frexp(values)[1]) + noise * int(np.count_nonzero(values))


def _stream(payload: Payload, index: int, plan: Plan, side: Side) -> Floats:
    """The values of a stream: 2 dense, 3 coefficients, 4 bases."""
    description, stream, runs = _column(payload, index, plan, side)
    return decode_values(description, stream, sum(runs), payload.dtype, runs)


def _column(payload: Payload, index: int, plan: Plan, side: Side) -> tuple[bytes, bytes, list[int]]:
    """Description, stream, and how many values belong together."""
    size, rest = divmod(len(payload.parameters), len(payload.streams) - 2)
    require(not rest, f"{len(payload.parameters)} bytes describe {len(payload.streams) - 2} streams of values")
    description = payload.parameters[(index - 2) * size : (index - 1) * size]
    spans = plan.matricisation.dense
    runs = [stop - start for start, stop in spans] if index == 2 else _runs(plan.shapes(side, of_bases=index == 4))
    return description, payload.streams[index], runs


def _runs(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """The values of each direction share their scale."""
    return [length for length, rank in shapes for _ in range(rank)]


def _flat(tensors: Sequence[Tensor], dtype: str) -> Floats:
    """All tensors one after the other on the CPU, each column after column."""
    if not tensors:
        return np.zeros(0, dtype)
    return torch.cat([tensor.T.reshape(-1) if tensor.dim() == 2 else tensor for tensor in tensors]).cpu().numpy()


def _cut(values: Floats, shapes: Sequence[tuple[int, int]], device: torch.device | str) -> list[Tensor]:
    """The tensors of ``_flat`` on a device."""
    pieces = torch.split(torch.from_numpy(values).to(device), [length * rank for length, rank in shapes])
    return [piece.view(rank, length).T for piece, (length, rank) in zip(pieces, shapes, strict=True)]


def _build(
    plan: Plan,
    coefficients: Sequence[Tensor],
    bases: Sequence[Tensor],
    side: Side,
    dense: Floats,
    like: Tensor,
) -> Tensor:
    """The vector, by the arithmetic that both ends share."""
    vector, values = torch.empty_like(like), torch.from_numpy(dense).to(like.device)
    spans = plan.matricisation.dense
    for (start, stop), piece in zip(spans, torch.split(values, [stop - start for start, stop in spans]), strict=True):
        vector[start:stop] = piece
    blocks = plan.matricisation.blocks
    pairs = [(b, c) if side(block) else (c, b) for block, c, b in zip(blocks, coefficients, bases, strict=True)]
    assemble(blocks, pairs, plan.exponents, vector)
    return vector
