"""Buckets: stretches of a tensor that share one scale, what is measured in each of them, and the scales themselves.

A bucket never spans two tensors; the last one of a tensor is shorter. What is measured, is measured alike on every
machine: maxima are exact, and sums are taken by halves, a fixed order of separate additions. Scales travel in 16 bits:
rounded up to 8 significant bits, so that no entry lies above the level that its scale stands for. Levels are relative
to the rounded scale, so rounding it biases nothing; it costs a factor of at most 1 + EXCESS.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.powers import Floats, exponent_above
from thinwire.blocks import each_block
from thinwire.layout import Layout

EXCESS = 2.0**-7
"""By how much a rounded scale exceeds the exact one, at most and relative to it."""

LEAST, MOST = 8, 2**31 - 1  # entries of a bucket; shorter ones would cost more than their entries
STRETCH = 32_768
"""Entries worked on at once on the CPU: they stay in the cache, and torch starts no threads of its own for so few."""

SIGNIFICANT = 8  # bits of a rounded scale
LARGEST = {"float32": (2 - EXCESS) * 2.0**127, "float64": (2 - EXCESS) * 2.0**1023}
SMALLEST = {"float32": -149, "float64": -1074}  # exponent of the smallest positive number
FLOOR = -130  # exponent of the finest grid of scales, relative to the largest: within the range of bfloat16

Float64s = NDArray[np.float64]
Edges = NDArray[np.int64]
Fold = Callable[[Tensor], Tensor]


def check_bucket(bucket: int) -> None:
    """Raise ValueError unless it is a size that buckets may have."""
    if not LEAST <= bucket <= MOST:
        raise ValueError(f"bucket = {bucket}; allowed: {LEAST} to {MOST}")


def edges(layout: Layout, bucket: int) -> Edges:
    """Where each bucket starts, ascending, and the end of the vector (int64)."""
    starts = [
        np.arange(start, start + entry.numel, bucket)
        for entry, start in zip(layout.entries, layout.offsets, strict=False)
    ]
    return np.concatenate([*starts, [layout.numel]]).astype(np.int64)


def widest(layout: Layout, bucket: int) -> int:
    """Entries of the largest bucket, the d of the bounds; at least 1."""
    return max((min(entry.numel, bucket) for entry in layout.entries if entry.numel), default=1)


def first_of_widest(layout: Layout, bucket: int) -> slice:
    """The first bucket of that size."""
    bounds = edges(layout, bucket)
    index = int(np.argmax(np.diff(bounds))) if layout.numel else 0
    return slice(int(bounds[index]), int(bounds[min(index + 1, len(bounds) - 1)]))


def largest(x: Tensor, layout: Layout, bucket: int) -> Float64s:
    """The largest magnitude of each bucket, exactly."""
    return measure(x, layout, bucket, torch.abs, _largest_of_rows)


def norms(x: Tensor, layout: Layout, bucket: int) -> Float64s:
    """The Euclidean norm of each bucket, to 1e-15 of it, and at most the largest finite number."""
    exponent = safe_exponent(x)
    squares = measure(x, layout, bucket, lambda rows: _lowered(rows, exponent).square_(), total)
    return _raised(np.sqrt(squares), exponent)


def means(x: Tensor, layout: Layout, bucket: int) -> Float64s:
    """The mean magnitude of each bucket, to 1e-6 of it, or 1e-15 in float64."""
    exponent = safe_exponent(x)
    lowered: Fold = torch.abs if x.dtype == torch.float32 else lambda rows: _lowered(rows, exponent).abs_()
    sums = measure(x, layout, bucket, lowered, lambda rows: total(rows).double())
    if not bool(np.isfinite(sums).all()):  # float32, near the end of its range
        sums = measure(x, layout, bucket, lambda rows: rows.double().abs(), total)
    return _raised(sums / np.maximum(np.diff(edges(layout, bucket)), 1), exponent)


def measure(x: Tensor, layout: Layout, bucket: int, prepare: Fold, fold: Fold) -> Float64s:
    """One number (or row of numbers) per bucket, in the order of ``edges``.

    ``prepare`` maps entries, ``fold`` reduces the rows of a matrix to float64. Buckets longer than STRETCH are folded
    in stretches of that length, and then those.
    """
    found = []
    for _, piece in layout.pieces(x):
        whole = len(piece) // bucket * bucket
        found += _fold_rows(piece[:whole], bucket, prepare, fold)
        found += _fold_rows(piece[whole:], len(piece) - whole, prepare, fold)
    return torch.cat(found).cpu().numpy() if found else np.zeros(0)


def _fold_rows(x: Tensor, width: int, prepare: Fold, fold: Fold) -> list[Tensor]:
    """Rows of that width, one after the other."""
    if not x.numel():
        return []
    if width > STRETCH:
        whole = width // STRETCH * STRETCH
        pieces = [
            _fold_rows(row[:whole], STRETCH, prepare, fold) + _fold_rows(row[whole:], width - whole, prepare, fold)
            for row in x.view(-1, width)
        ]
        return [fold(torch.cat(piece)[None]) for piece in pieces]
    rows = x.view(-1, width)
    if x.device.type != "cpu":
        return [fold(prepare(rows))]
    return each_block(len(rows), STRETCH // width, lambda start, stop: fold(prepare(rows[start:stop])), fewest=64)


def total(rows: Tensor) -> Tensor:
    """The sum of each row, by halves, the last of an odd number to the first: the same bits on every device."""
    sums: Any = rows.numpy() if rows.device.type == "cpu" else rows  # NumPy is twice as fast on what is short
    while (width := sums.shape[1]) > 1:
        half = width // 2
        with np.errstate(over="ignore"):  # as torch
            halves = sums[:, :half] + sums[:, half : 2 * half]
            if width % 2:
                halves[:, :1] += sums[:, -1:]
        sums = halves
    return torch.as_tensor(sums[:, 0])


def _largest_of_rows(rows: Tensor) -> Tensor:
    return rows.amax(1).double()


def safe_exponent(x: Tensor) -> int:
    """An e such that entries times 2^-e have squares and sums that neither overflow nor vanish in float64."""
    if x.dtype == torch.float32 or not x.numel():
        return 0
    low, high = torch.aminmax(x)
    return max(-1_000, min(exponent_above(max(-float(low), float(high))), 1_000))


def _lowered(rows: Tensor, exponent: int) -> Tensor:
    """A copy in float64, times 2^-exponent."""
    return rows.double() if rows.dtype == torch.float32 else rows * 2.0**-exponent


def _raised(values: Float64s, exponent: int) -> Float64s:
    with np.errstate(over="ignore"):
        return np.minimum(np.ldexp(values, exponent), np.finfo(np.float64).max)


def round_up(scales: Float64s, parts: int, dtype: str) -> Floats:
    """``scales / parts`` rounded up to 8 significant bits, as numbers of ``dtype``; at most the largest such number.

    Below the normal numbers of the dtype, and below 2^-130 of the largest scale, the grid is coarser; 0 stays 0.
    """
    exponent = exponent_above(float(scales.max())) if len(scales) else 0
    relative = np.ldexp(scales, -exponent) / parts
    finest = max(SMALLEST[dtype] - exponent, FLOOR)
    lift = np.minimum(SIGNIFICANT - np.frexp(relative)[1], -finest)
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.ceil(np.ldexp(relative, lift)), exponent - lift)
    return np.asarray(np.minimum(rounded, LARGEST[dtype]).astype(dtype))


def spread(scales: Tensor, bounds: Edges, start: int, stop: int) -> Tensor:
    """The scale of its bucket for every entry from start to stop, or one scale for all if they share it.

    ``bounds`` are the edges of the buckets.
    """
    first, last = int(bounds.searchsorted(start, "right")) - 1, int(bounds.searchsorted(stop, "left"))
    if last - first == 1:
        return scales[first:last]
    cuts = bounds[first : last + 1].copy()
    cuts[0], cuts[-1] = start, stop
    lengths = cuts[1:] - cuts[:-1]
    if scales.device.type == "cpu":
        return torch.from_numpy(scales[first:last].numpy().repeat(lengths))  # several times faster than torch's
    counts = torch.from_numpy(lengths).to(scales.device)
    return torch.repeat_interleave(scales[first:last], counts, output_size=stop - start)
