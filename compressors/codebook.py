"""Code books: rounding to the magnitudes of an ascending list, at random or to the nearest.

Level 1 is the largest magnitude and level ``most`` the smallest; below it there is zero, level 0. The place of an entry
among many thresholds is found by its leading bits, with a table that is right up to one threshold, and one comparison:
ten times faster than a search by halves, and the same on every device.
"""

import numpy as np
import torch
from torch import Tensor

from compressors.powers import Floats
from compressors.quantised import Rounding

WORDS = {"float32": (np.int32, 23), "float64": (np.int64, 52)}  # word of the same size, bits of its mantissa


class Places:
    """How many of some ascending positive thresholds lie at or below a magnitude."""

    def __init__(self, thresholds: Floats, device: torch.device) -> None:
        word, mantissa = WORDS[thresholds.dtype.name]
        bits = thresholds.view(word)
        self._shift = next(shift for shift in range(mantissa, -1, -1) if len(np.unique(bits >> shift)) == len(bits))
        keys = bits >> self._shift
        self._first, self._cells = int(keys[0]) - 1, int(keys[-1] - keys[0]) + 2
        below = np.searchsorted(keys, np.arange(self._first, self._first + self._cells)).astype(np.int32)
        self._below = torch.from_numpy(below).to(device)
        self._next = torch.from_numpy(np.append(thresholds, thresholds.dtype.type(np.inf))).to(device)

    def of(self, magnitudes: Tensor) -> Tensor:
        """Their places (int32), 0 to the number of thresholds."""
        word = torch.int64 if magnitudes.dtype == torch.float64 else torch.int32
        keys = (magnitudes.view(word) >> self._shift).sub_(self._first).clamp_(0, self._cells - 1)
        places = self._below.index_select(0, keys)
        return places.add_(magnitudes >= self._next.index_select(0, places))


def rounding(magnitudes: Floats, device: torch.device, nearest: bool) -> Rounding:
    """Entries to signed levels of the ascending positive magnitudes, none of which an entry exceeds.

    At random: the two levels around an entry, without bias, with probabilities exact to 2^-24 (float32) or 2^-32.
    To the nearest: ties go up.
    """
    ladder = np.concatenate([np.zeros(1, magnitudes.dtype), magnitudes])
    if nearest:
        return _to_nearest(Places(ladder[:-1] / 2 + ladder[1:] / 2, device), len(magnitudes))
    gaps = np.append(1 / np.diff(ladder), 0).astype(ladder.dtype)
    lower, inverse = torch.from_numpy(ladder).to(device), torch.from_numpy(gaps).to(device)
    return _to_random(Places(magnitudes, device), lower, inverse, len(magnitudes))


def _to_nearest(places: Places, most: int) -> Rounding:
    return lambda entries, noise: _signed(places.of(entries.abs()), entries, most)


def _to_random(places: Places, lower: Tensor, inverse: Tensor, most: int) -> Rounding:
    def work(entries: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        magnitudes = entries.abs()
        place = places.of(magnitudes)
        share = (magnitudes - lower.index_select(0, place)) * inverse.index_select(0, place)
        if entries.dtype == torch.float64:
            up = (noise.long() & 0xFFFFFFFF) < share * 2.0**32
        else:
            up = ((noise >> 8) & 0xFFFFFF) < share * 2.0**24
        return _signed(place.add_(up), entries, most)

    return work


def _signed(places: Tensor, entries: Tensor, most: int) -> Tensor:
    """Levels of places, with the signs of the entries: -level is the complement of level - 1."""
    levels = (most + 1 - places).mul_(places > 0)
    wide = entries.dtype == torch.float64
    negative = (entries.view(torch.int64) >> 63).int() if wide else entries.view(torch.int32) >> 31
    return (levels ^ negative).sub_(negative)


def table(magnitudes: Floats) -> Floats:
    """The value of every level from -most to most, by ``level + most``."""
    return np.concatenate([-magnitudes, np.zeros(1, magnitudes.dtype), magnitudes[::-1]])


def worst_of_bucket(magnitudes: Floats, count: int, excess: float, nearest: bool) -> tuple[float, float, float]:
    """The largest relative squared error (in mean) that ``count`` entries may have, and where: one entry, all others.

    Entries are relative to a scale that exceeds the largest of them by up to ``excess``; magnitudes end in 1. The
    supremum of a ratio of two sums, by the method of Dinkelbach, "On nonlinear fractional programming", 1967.
    """
    ladder, constant = np.concatenate([np.zeros(1), magnitudes.astype(np.float64)]), 0.0
    while True:
        rest_error, rest = _worst_entry(ladder, 0.0, constant, nearest)
        top_error, top = _worst_entry(ladder, 1 / (1 + excess), constant, nearest)
        ratio = ((count - 1) * rest_error + top_error) / ((count - 1) * rest**2 + top**2)
        if ratio <= constant * (1 + 1e-12):
            return ratio, top, rest
        constant = ratio


def _worst_entry(ladder: Floats, least: float, constant: float, nearest: bool) -> tuple[float, float]:
    """The magnitude y from ``least`` to 1 with the largest error - constant y^2: that error, and y."""
    low, high = ladder[:-1], ladder[1:]
    peaks = (low + high) / 2 if nearest else (low + high) / (2 * (1 + constant))
    y = np.clip(np.append(peaks, least), np.maximum(np.append(low, least), least), np.append(high, 1))
    y = y[y >= least]
    place = np.clip(np.searchsorted(ladder, y, "right") - 1, 0, len(low) - 1)
    down, up = y - low[place], high[place] - y
    errors = np.minimum(down, up) ** 2 if nearest else down * up
    best = int(np.argmax(errors - constant * y**2))
    return float(errors[best]), float(y[best])
