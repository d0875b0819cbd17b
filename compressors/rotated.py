"""What DRIVE and EDEN share: rotate, quantise every entry with few bits, scale every chunk, rotate back.

Every tensor is cut into chunks of its own (``compressors.hadamard``); tensors below 256 entries travel as they are. A
decoded chunk is s R^T q; s = |x|^2 / <Rx, q> makes it unbiased, s = <Rx, q> / |q|^2 the nearest. With a share below 1
only the first rows of every chunk travel: after the rotation they are as good as any.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import DTYPE_NAMES, DTYPES, Encoded, Payload, check_input, require
from compressors.bounds import entropy_bits
from compressors.hadamard import Blocks, Run, accelerator, cut, each_piece, native, pieces_of, sign_words
from compressors.lloyd_max import CELLS, CELLS_PER_UNIT, ERROR, MOST_BITS, centroids, nearest
from compressors.powers import Bytes, Floats, exponent_above
from compressors.scope import dense_spans, parts
from compressors.values import PARAMETERS as DESCRIPTION
from compressors.values import decode_values, encode_values, least_value_bits
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols

PARAMETERS = struct.Struct("<BH")  # bits of a symbol; share of the rotated entries that travel, in 2^-16, less one
SHARES = 1 << 16
SAFE = 2.0**-20  # of the largest finite number: below it, a scale times an entry of R^T q does not overflow


@dataclass(frozen=True)
class Form:
    """How a rotated vector is quantised."""

    bits: int  # of a symbol, 1 to 8
    share: int = SHARES  # of the rotated entries, in units of 2^-16; less than all with one bit only

    @staticmethod
    def of(rate: float) -> "Form":
        """That of so many bits an entry; a share is rounded up to its unit."""
        return Form(int(rate)) if rate >= 1 else Form(1, math.ceil(rate * SHARES))

    def rows(self, run: Run) -> int:
        """How many rows of a run travel."""
        return -(-self.share * run.rows // SHARES)

    def omega(self, layout: Layout) -> float:
        """Of the unbiased scale: D / (1 - D) of a Gaussian and 1/n of it more; after a share p, (1 + omega) / p - 1."""
        gaussian = ERROR[self.bits] / (1 - ERROR[self.bits])
        terms = ((1 + gaussian * (1 + 1 / run.rows)) * run.rows / self.rows(run) - 1 for run in runs_of(layout))
        return max(terms, default=0.0)

    def alpha(self, layout: Layout) -> float:
        """Of the nearest scale: 1 - D of a Gaussian and 3/n of D less, times the share."""
        terms = ((1 - ERROR[self.bits] * (1 + 3 / run.rows)) * self.rows(run) / run.rows for run in runs_of(layout))
        return min(terms, default=1.0)


def runs_of(layout: Layout) -> tuple[Run, ...]:
    """The runs of all tensors that are not dense."""
    return cut((part.start, part.stop) for part in parts(layout, 1.0, "tensor"))


def encode_rotated(codec: str, x: Tensor, layout: Layout, key: Key, form: Form, biased: bool) -> Encoded:
    """One stream of symbols, one of the scales and the dense tensors."""
    check_input(x, layout)
    x, device = x.detach().contiguous(), accelerator(x.device)
    runs, decoded = runs_of(layout), torch.empty_like(x)
    pieces, words = pieces_of(runs, device), sign_words(runs, key)
    exponents = _exponents(x, runs, device)
    at_symbol, at_scale = _firsts(pieces, form)
    symbols = torch.empty(at_symbol[-1], dtype=torch.uint8, device=x.device)
    scales = np.empty(at_scale[-1], DTYPE_NAMES[x.dtype])
    source, target, found = native(x), native(decoded), native(symbols)

    def work(index: int) -> None:
        piece = pieces[index]
        quantiser = Quantiser(Blocks(piece, words, x.dtype, device), form)
        own, levels, scale = quantiser.quantise(source[piece.start : piece.stop], exponents[index], biased)
        found[at_symbol[index] : at_symbol[index + 1]] = own
        scales[at_scale[index] : at_scale[index + 1]] = scale.reshape(-1)
        quantiser.rebuild(levels, scale, target[piece.start : piece.stop])

    each_piece(pieces, device, work)
    dense = _dense(layout)
    decoded[dense] = x[dense]
    kept = np.concatenate([scales, x[dense].cpu().numpy()])
    description, stream, _ = encode_values(kept, "fp32", None)
    parameters = PARAMETERS.pack(form.bits, form.share - 1) + description
    streams = (pack_symbols([symbols.cpu().numpy()]), stream)
    return Encoded(Payload(codec, DTYPE_NAMES[x.dtype], parameters, streams), decoded)


def decode_rotated(payload: Payload, layout: Layout, key: Key, device: torch.device | str, most_bits: int) -> Tensor:
    """The vector. Raises WireError on another form than ``encode_rotated`` writes."""
    form, pieces, symbols, values = _read(payload, layout, accelerator(device), most_bits)
    at_symbol, at_scale = _firsts(pieces, form)
    scales = values[: at_scale[-1]]
    require(not bool((scales < 0).any()), "negative scale")
    words, dtype = sign_words(runs_of(layout), key), DTYPES[payload.dtype]
    out = torch.empty(layout.numel, dtype=dtype, device=device)
    source, target = native(torch.from_numpy(symbols).to(device)), native(out)

    def work(index: int) -> None:
        piece = pieces[index]
        quantiser = Quantiser(Blocks(piece, words, dtype, accelerator(device)), form)
        levels = quantiser.levels(source[at_symbol[index] : at_symbol[index + 1]])
        scale = scales[at_scale[index] : at_scale[index + 1]].reshape(piece.count, piece.columns)
        quantiser.rebuild(levels, scale, target[piece.start : piece.stop])

    each_piece(pieces, accelerator(device), work)
    out[_dense(layout)] = torch.from_numpy(values[at_scale[-1] :]).to(device)
    return out


def least_rotated_bits(payload: Payload, layout: Layout) -> float:
    """The entropy of the symbols, and of the bytes of scales and dense tensors."""
    _, _, symbols, values = _read(payload, layout, None, MOST_BITS)
    description = payload.parameters[PARAMETERS.size :]
    return entropy_bits(symbols) + least_value_bits(description, payload.streams[1], len(values), payload.dtype)


def _read(
    payload: Payload, layout: Layout, device: torch.device | None, most_bits: int
) -> tuple[Form, list[Run], Bytes, Floats]:
    """Form, pieces, symbols, and scales with dense entries behind them; all checked against the layout."""
    require(len(payload.streams) == 2, f"rotated codec of {len(payload.streams)} streams; expected 2")
    size = PARAMETERS.size + DESCRIPTION.size
    require(len(payload.parameters) == size, f"{len(payload.parameters)} bytes of parameters; expected {size}")
    bits, less = PARAMETERS.unpack_from(payload.parameters)
    require(1 <= bits <= most_bits, f"{bits} bits; allowed: 1 to {most_bits}")
    require(less + 1 == SHARES or bits == 1, f"a share of {less + 1} / 2^16 with {bits} bits")
    form, pieces = Form(bits, less + 1), pieces_of(runs_of(layout), device)
    at_symbol, at_scale = _firsts(pieces, form)
    symbols = unpack_symbols(payload.streams[0], 1, at_symbol[-1])[0]
    require(int(symbols.max(initial=0)) < 1 << bits, f"symbol {int(symbols.max(initial=0))} of {bits} bits")
    count = at_scale[-1] + len(_dense(layout))
    values = decode_values(payload.parameters[PARAMETERS.size :], payload.streams[1], count, payload.dtype)
    return form, pieces, symbols, values


def _firsts(pieces: Sequence[Run], form: Form) -> tuple[list[int], list[int]]:
    """Where the symbols and the scales of each piece start, and where all end."""
    symbols = [form.rows(piece) * piece.columns * piece.count for piece in pieces]
    scales = [piece.columns * piece.count for piece in pieces]
    return np.cumsum([0, *symbols]).tolist(), np.cumsum([0, *scales]).tolist()


def _dense(layout: Layout) -> Tensor:
    """The positions of the entries that travel as they are."""
    return torch.cat(
        [torch.zeros(0, dtype=torch.int64), *(torch.arange(a, b) for a, b in dense_spans(layout, "tensor"))]
    )


def _exponents(x: Tensor, runs: Sequence[Run], device: torch.device | None) -> list[int]:
    """For each piece, that of the power of two above its run's entries, within what a float can be multiplied by."""
    most, found = 120 if x.dtype == torch.float32 else 1_000, []
    for run in runs:
        low, high = torch.aminmax(x[run.start : run.stop])
        exponent = min(max(exponent_above(max(-float(low), float(high))), -most), most)
        found += [exponent] * len(pieces_of([run], device))
    return found


class Quantiser:
    """The quantised chunks of one run; on arrays and tensors alike, with the same bits."""

    def __init__(self, blocks: Blocks, form: Form) -> None:
        self.blocks, self.form, self.run = blocks, form, blocks.run
        self.shape = (self.run.count, self.run.rows, self.run.columns)
        self.kept = form.rows(self.run)

    def quantise(self, values: Any, exponent: int, biased: bool) -> tuple[Any, Any, Floats]:
        """Symbols, the levels they stand for, and the scale of every chunk (blocks x columns)."""
        loaded = self.blocks.load(values)
        loaded *= 2.0**-exponent
        z = self.blocks.forward(loaded).reshape(self.shape)
        norm, rows, one_bit = self.blocks.norm, self.run.rows, self.form.bits == 1
        energy = column_sums(z * z) * norm**2
        symbols = self._signs(z) if one_bit else self._cells(z, energy)
        levels = self.levels(symbols)
        inner = column_sums(self._products(z, levels, biased)) * (norm if one_bit else 1.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if biased:
                power = self.kept if one_bit else column_sums((levels * levels).reshape(self.shape)) / norm**2
                scale = np.nan_to_num(inner / power, nan=0.0)
            else:
                scale = np.nan_to_num(energy / inner, nan=0.0, posinf=0.0) * (rows / self.kept)
            scale = np.ldexp(scale, exponent)
        dtype = DTYPE_NAMES[self.blocks.dtype]
        return symbols, levels, np.clip(scale, 0, float(np.finfo(dtype).max)).astype(dtype)

    def _products(self, z: Any, levels: Any, biased: bool) -> Any:
        """Their column sums are <Rx, q>; of the entries that travel, for the nearest scale."""
        if self.form.bits > 1:
            return z * levels.reshape(self.shape)
        magnitudes = abs(z)
        if biased:
            magnitudes[:, self.kept :] = 0
        return magnitudes

    def _signs(self, z: Any) -> Any:
        """1 where z is not negative."""
        signs = z[:, : self.kept] >= 0
        return (signs.view(np.uint8) if self.blocks.device is None else signs.to(torch.uint8)).reshape(-1)

    def _cells(self, z: Any, energy: NDArray[np.float64]) -> Any:
        """The centroid nearest to each entry, whose chunk is first scaled to a variance of 1; by table."""
        unit = np.sqrt(np.divide(self.run.rows, energy, out=np.zeros_like(energy), where=energy > 0))
        scaled = z * self.blocks.constant(unit[:, None] * (self.blocks.norm * CELLS_PER_UNIT))
        scaled += CELLS // 2
        if self.blocks.device is None:
            cells = scaled.astype(np.int32).reshape(-1)
            return np.take(_nearest(self.form.bits), cells, mode="clip")
        cells = scaled.to(torch.int32).clamp(0, CELLS - 1).reshape(-1)
        return torch.from_numpy(_nearest(self.form.bits)).to(self.blocks.device)[cells]

    def levels(self, symbols: Any) -> Any:
        """q times the norm of the rotation (a power of two), as long as the run: what does not travel is zero."""
        norm, on_cpu = self.blocks.norm, self.blocks.device is None
        if self.form.bits > 1:
            table = self.blocks.constant(centroids(self.form.bits) * norm)
            return np.take(table, symbols, mode="clip") if on_cpu else table[symbols.int()]
        out = self.blocks.empty()
        kept = out.reshape(self.shape)[:, : self.kept]
        kept[:] = symbols.reshape(kept.shape)
        kept *= 2 * norm
        kept -= norm
        out.reshape(self.shape)[:, self.kept :] = 0
        return out

    def rebuild(self, levels: Any, scale: Floats, target: Any) -> None:
        """Write s R^T q; ``levels`` are used up. What would overflow is clamped to the largest finite number."""
        most = float(np.finfo(scale.dtype).max)
        vector = self.blocks.backward(levels).reshape(self.shape)
        own = scale[:, None] if self.blocks.device is None else torch.from_numpy(scale[:, None]).to(self.blocks.device)
        with np.errstate(over="ignore"):
            vector *= own
        if float(scale.max()) > most * SAFE:
            vector = vector.clip(-most, most)
        target[:] = vector.reshape(-1)[: len(target)]


def column_sums(values: Any) -> NDArray[np.float64]:
    """Sums over the rows of (blocks, rows, columns), by halves: the same bits on every device."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    sums = values[:, 0]
    return np.asarray(sums if isinstance(sums, np.ndarray) else sums.cpu().numpy(), np.float64)


@cache
def _nearest(bits: int) -> Bytes:
    return nearest(bits)
