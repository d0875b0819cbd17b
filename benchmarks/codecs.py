"""Bytes and speed of every compressor: ``python -m benchmarks.codecs [--json] [--sizes 1000000 25000000]``.

Speeds count the bytes of the float32 input, are the best of a few runs, and stand beside the speed of a copy in the
same run. The bound is the information-theoretic minimum for the same symbols: log2 C(d, k) for the places, and the
empirical entropy of each byte (exponent, mantissa, sign) for the values.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors import Compressor, Expectation, decode
from compressors.identity import Identity
from compressors.natural import Natural
from compressors.rand_k import RandK
from compressors.scaled import Scaled
from compressors.top_k import TopK
from thinwire.layout import Layout
from thinwire.random import Key

KEY = Key(1, "benchmark")
COMPRESSORS: tuple[Compressor, ...] = (
    Identity(),
    TopK(0.01, "fp32"),
    TopK(0.01, "bf16"),
    TopK(0.01, "natural"),
    TopK(0.1, "bf16"),
    RandK(0.01, "fp32"),
    RandK(0.01, "bf16"),
    Natural(),
    Scaled(Natural()),
)


@dataclass(frozen=True)
class Row:
    """One compressor at one size."""

    compressor: str
    entries: int
    bits: float  # bits on the wire per entry
    bound: float  # the least bits per entry for the same symbols
    encode: float  # GB/s of float32 input
    decode: float  # GB/s of float32 output
    copy: float  # GB/s of a plain copy, in the same run


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 25_000_000], help="entries of the vector")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0: as torch chooses")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the best counts")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [row for size in options.sizes for row in measure(size, options.repeats)]
    print(json.dumps([vars(row) for row in rows], indent=1) if options.json else table(rows))


def measure(entries: int, repeats: int) -> list[Row]:
    """Every compressor on one Gaussian vector."""
    noise = np.random.Generator(np.random.Philox(1)).standard_normal(entries, dtype=np.float32)
    x, layout = torch.from_numpy(noise), Layout.flat(entries)
    copy = speed(x, x.clone, repeats)
    return [_row(compressor, x, layout, copy, repeats) for compressor in COMPRESSORS]


def _row(compressor: Compressor, x: Tensor, layout: Layout, copy: float, repeats: int) -> Row:
    encoded = compressor.encode(x, layout, KEY)
    expectation = Expectation(layout, x.dtype, compressor.codecs)
    return Row(
        compressor=repr(compressor),
        entries=layout.numel,
        bits=8 * encoded.payload.size / layout.numel,
        bound=bound(encoded.decoded, compressor) / layout.numel,
        encode=speed(x, lambda: compressor.encode(x, layout, KEY), repeats),
        decode=speed(x, lambda: decode(encoded.payload, expectation, KEY), repeats),
        copy=copy,
    )


def speed(x: Tensor, work: Callable[[], object], repeats: int) -> float:
    """GB/s of the fastest run."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return x.numel() * x.element_size() / min(seconds) / 1e9


def bound(decoded: Tensor, compressor: Compressor) -> float:
    """Bits for the places of the nonzero entries, unless a key gives them, and for the bytes of the values."""
    if isinstance(compressor, Identity):
        return 32.0 * len(decoded)
    kept = decoded[decoded != 0] if isinstance(compressor, TopK | RandK) else decoded
    places = log2_binomial(len(decoded), len(kept)) if isinstance(compressor, TopK) else 0.0
    if isinstance(compressor, Scaled):  # back to the powers of two, which the scaled bytes hide
        kept = torch.ldexp(torch.sign(kept), torch.frexp(kept).exponent)
    words = kept.numpy().view(np.uint32)
    planes = ((words << np.uint32(1)) | (words >> np.uint32(31))).view(np.uint8).reshape(-1, 4).T
    return places + sum(_entropy_bits(plane) for plane in planes)


def _entropy_bits(symbols: NDArray[np.uint8]) -> float:
    counts = np.bincount(symbols, minlength=256)
    share = counts[counts > 0] / len(symbols)
    return float(-(share * np.log2(share)).sum()) * len(symbols)


def log2_binomial(d: int, k: int) -> float:
    """log2 C(d, k)."""
    return (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)


def table(rows: list[Row]) -> str:
    """Aligned columns."""
    lines = [
        f"{'entries':>10} {'bits':>8} {'bound':>8} {'x bound':>7} {'encode':>7} {'decode':>7} {'copy':>6}  compressor"
    ]
    for row in rows:
        numbers = f"{row.entries:>10} {row.bits:>8.4f} {row.bound:>8.4f} {row.bits / row.bound:>7.3f}"
        lines.append(f"{numbers} {row.encode:>7.2f} {row.decode:>7.2f} {row.copy:>6.1f}  {row.compressor}")
    return "\n".join([*lines, "bits and bound: per entry; encode, decode, copy: GB/s of float32"])


if __name__ == "__main__":
    main()
