"""What linear sketches share: their sums stay within the range of the dtype."""

import math

import numpy as np
import torch
from torch import Tensor

from compressors.base import require
from compressors.powers import Floats, exponent_above

MOST_VALUE = {"float32": 2.0**108, "float64": 2.0**990}
"""No sketch of a vector within ROOM has larger values; 2^17 of them still add up to a finite number."""

ROOM = {torch.float32: (-60, 88), torch.float64: (-900, 970)}
"""Exponents above the largest magnitude within which sums neither overflow nor lose what is small beside it."""


def shift_of(x: Tensor) -> int:
    """The power of two to divide by first: 0 for any vector of a reasonable size, so that sketches simply add up."""
    low, high = torch.aminmax(x) if x.numel() else (torch.zeros(()), torch.zeros(()))
    exponent = exponent_above(max(-float(low), float(high)))
    least, most = ROOM[x.dtype]
    return 0 if least <= exponent <= most or exponent == 0 else exponent


def shifted(x: Tensor, shift: int) -> Tensor:
    """x times 2^shift, by exact multiplications with powers of two that the dtype has; clamped to the finite range."""
    if shift == 0:
        return x
    most = torch.finfo(x.dtype).max
    for factor in (shift // 2, shift - shift // 2):
        x = torch.clamp(x * torch.tensor(math.ldexp(1.0, factor), dtype=x.dtype), -most, most)
    return x


def check_size(values: Floats) -> None:
    """Raise WireError on a value so large that sums of them might overflow."""
    most = float(np.abs(values).max(initial=0))
    require(most <= MOST_VALUE[values.dtype.name], f"value of {most:.3g} in a sketch")
