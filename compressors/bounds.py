"""What a message costs at least: the information in its places and its symbols, in bits."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressors.powers import Floats


def log2_binomial(population: int, chosen: int) -> float:
    """log2 C(population, chosen): which entries were kept."""
    d, k = population, chosen
    return (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)


def entropy_bits(symbols: NDArray[Any]) -> float:
    """The empirical entropy of all symbols together: what no code that knows their frequencies goes below."""
    if not len(symbols):
        return 0.0
    counts = np.unique(symbols, return_counts=True)[1]
    share = counts / len(symbols)
    return float(-(share * np.log2(share)).sum()) * len(symbols)


def value_bits(values: Floats) -> float:
    """Floating-point values: the entropy of each byte, with the exponent in a byte of its own.

    Signs and mantissas are noise; what can be saved is in the exponent, and in bytes that rounding has emptied.
    """
    if not len(values):
        return 0.0
    word: Any = np.uint32 if values.dtype == np.float32 else np.uint64
    turn, size = (1, 4) if values.dtype == np.float32 else (4, 8)
    bits: NDArray[Any] = np.ascontiguousarray(values).view(word)
    turned: NDArray[Any] = (bits << word(turn)) | (bits >> word(8 * size - turn))
    return sum(entropy_bits(plane) for plane in turned.view(np.uint8).reshape(-1, size).T)
