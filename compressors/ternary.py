"""Ternary: signs of the entries above the best threshold."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input
from compressors.buckets import LEAST, STRETCH, edges, first_of_widest, measure, safe_exponent, widest
from compressors.quantised import decode_levels, encode_levels, least_bits, quantise
from thinwire.layout import Layout
from thinwire.random import Key

ROUNDED = 2.0**-16  # squared relative error of a magnitude rounded to the nearest bfloat16


@dataclass(frozen=True)
class Ternary(Compressor):
    """Send 0 or plus or minus one magnitude, by buckets, with the threshold of least error. Contractive.

    The k entries of largest magnitude become plus or minus their mean S_k / k, the rest 0, with the k of each bucket
    that leaves the least error, |x|^2 - S_k^2 / k. alpha = (1 - 2^-16) / sum_{i=1..d} (sqrt(i) - sqrt(i-1))^2, about
    1 / (1 + ln(d) / 4), 0.39 for d = 512: exact, attained where the i-th largest entry is sqrt(i) - sqrt(i-1), which
    makes every k equally good. d is the size of the largest bucket; no bucket spans two tensors.

    About 1.5 bits an entry, and a squared error of 0.19 for a Gaussian. Biased, so pair it with error feedback; unlike
    sign it keeps a share of every vector that hardly depends on its size.

    Source: Li, Zhang, Liu, "Ternary weight networks", 2016, for the optimal threshold; alpha is ours, by majorisation:
    where S_k^2 / k <= M for all k, |x|^2 is largest if S_k = sqrt(k M).
    """

    name: ClassVar[str] = "ternary"
    bucket: int = 512  # entries that share a magnitude, 8 to 32,768

    def __post_init__(self) -> None:
        if not LEAST <= self.bucket <= STRETCH:
            raise ValueError(f"bucket = {self.bucket}; allowed: {LEAST} to {STRETCH}")

    def alpha(self, layout: Layout) -> float:
        """(1 - 2^-16) / sum_i (sqrt(i) - sqrt(i-1))^2 over the entries of the largest bucket."""
        return (1 - ROUNDED) / float(np.sum(np.diff(np.sqrt(np.arange(widest(layout, self.bucket) + 1))) ** 2))

    def worst(self, layout: Layout) -> Tensor:
        """sqrt(i) - sqrt(i-1) in one bucket of the largest size, and zeros."""
        x, bucket = torch.zeros(layout.numel, dtype=torch.float64), first_of_widest(layout, self.bucket)
        x[bucket] = torch.diff(torch.arange(bucket.stop - bucket.start + 1, dtype=torch.float64).sqrt())
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the ternary digits and of the magnitudes."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A magnitude per bucket and a digit per entry."""
        check_input(x, layout)
        x, dtype = x.detach().contiguous(), DTYPE_NAMES[x.dtype]
        exponent = safe_exponent(x)
        found = measure(x, layout, self.bucket, torch.abs, lambda rows: _thresholds(rows, exponent))
        thresholds, means = found.reshape(-1, 2).T
        digits = quantise(x, edges(layout, self.bucket), thresholds.astype(dtype), torch.int8, _cut_off, None)
        units = np.ldexp(means, exponent).astype(dtype)
        return encode_levels(self.name, x, layout, self.bucket, digits, 1, units)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Digit times magnitude."""
        return decode_levels(payload, layout, device, range(1, 2))


def _cut_off(entries: Tensor, noise: Tensor | None) -> Tensor:
    """Entries in units of their threshold to -1, 0 or 1: what is below 1 in magnitude becomes 0 as an integer."""
    return entries.clamp_(-1, 1)


def _thresholds(magnitudes: Tensor, exponent: int) -> Tensor:
    """For each row the smallest entry that is kept, and the mean of the kept ones times 2^-exponent (float64).

    In a fixed order of separate operations, so that every device finds the same.
    """
    if magnitudes.device.type == "cpu":  # NumPy sorts thirty times faster
        ascending = torch.from_numpy(np.sort(magnitudes.numpy(), axis=1))
    else:
        ascending = torch.sort(magnitudes, dim=1).values
    width, step = magnitudes.shape[1], 1
    sums = ascending.double() * 2.0**-exponent
    while step < width:  # afterwards, of each entry and all larger ones
        sums = torch.cat([sums[:, :-step] + sums[:, step:], sums[:, -step:]], dim=1)
        step *= 2
    counts = torch.arange(width, 0, -1, dtype=torch.float64, device=magnitudes.device)
    gains = sums * sums / counts
    best = torch.where(gains == gains.amax(1, keepdim=True), ascending, math.inf).amin(1, keepdim=True)
    dropped = (ascending < best).sum(1, keepdim=True)
    means = sums.gather(1, dropped) / (width - dropped)
    return torch.cat([best.double(), means], dim=1)
