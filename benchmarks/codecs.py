"""Bytes, error and speed of every compressor: ``python -m benchmarks.codecs [--quick] [--only NAME] [--json FILE]``.

The vector is a model of square matrices of 1,000 x 1,000: one of them, and twenty-five. Speeds count the bytes of the
float32 input, are the best of a few runs, and stand beside the speed of a copy in the same run. The bound is what no
code of the same symbols goes below (``Compressor.least_bits``). Data: "gauss", and "heavy": Student's t with 3 degrees
of freedom times a log-normal scale per 4,096 entries, on which one scale for all entries breaks. With a CUDA device
each is measured there too.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressors import Compressor, Expectation, decode, registry
from compressors.blockwise_8bit import Blockwise8Bit
from compressors.composed import Composed
from compressors.dithering import Dithering
from compressors.drive import Drive
from compressors.eden import Eden
from compressors.induced import Induced
from compressors.natural import Natural
from compressors.qsgd import QSGD
from compressors.rand_k import RandK
from compressors.scaled import Scaled
from compressors.top_k import TopK
from thinwire.layout import Entry, Layout
from thinwire.random import Key

KEY = Key(1, "benchmark")
SIDE = 1_000
SIZES = (1, 25)  # matrices
SLOW = frozenset({"svd", "cx"})  # exact factors of large matrices: measured on one matrix only
BESIDE: tuple[Compressor, ...] = (  # beside every compressor's default options
    TopK(0.01, "fp32"),
    TopK(0.01, "natural"),
    TopK(0.01, "8-bit"),
    TopK(0.01, "4-bit"),
    TopK(0.02, "2-bit", "chunk"),
    TopK(0.1, "bf16"),
    RandK(0.01, "fp32"),
    QSGD(levels=7),
    Dithering(levels=7),
    Dithering(levels=1),
    Blockwise8Bit(unbiased=True),
    Drive(biased=True),
    Eden(bits=2),
    Scaled(Natural()),
    Composed(RandK(0.1, "fp32"), Natural()),
    Induced(TopK(0.01), RandK(0.01)),
)


@dataclass(frozen=True)
class Row:
    """One compressor on one vector and device."""

    codec: str
    dim: int
    data: str
    device: str
    bits_per_coordinate: float  # on the wire, without the packet's framing
    bound_bits_per_coordinate: float | None
    relative_error: float  # |C(x) - x|^2 / |x|^2
    encode_gbps: float  # GB/s of float32 input
    decode_gbps: float  # GB/s of float32 output
    memcpy_gbps: float  # of a copy of the same vector, in the same run


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    parser.add_argument("--quick", action="store_true", help="1 M entries only")
    parser.add_argument("--only", metavar="NAME", help="one compressor, by its name")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0: as torch chooses")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = [c for c in compressors() if options.only in (None, c.name)]
    if not chosen:
        parser.error(f"--only {options.only}: known are {', '.join(sorted(registry()))}")
    rows = []
    print(HEADER)
    for row in measure(chosen, SIZES[:1] if options.quick else SIZES, options.repeats):
        rows.append(row)
        print(line(row), flush=True)
    print(FOOTER)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


def compressors() -> list[Compressor]:
    """Every registered one with its default options (or its first example), and a few more."""
    found: list[Compressor] = []
    for _, kind in sorted(registry().items()):
        try:
            found.append(kind())
        except TypeError:  # around others, which it has no default for
            continue
    return sorted([*found, *BESIDE], key=lambda c: c.name)


def measure(chosen: Sequence[Compressor], sizes: Sequence[int], repeats: int, side: int = SIDE) -> Iterator[Row]:
    """All compressors on all vectors and devices."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for matrices in sizes:
        layout = Layout(tuple(Entry(f"matrix{i}", (side, side)) for i in range(matrices)))
        for data in ("gauss", "heavy"):
            vector = torch.from_numpy(DATA[data](layout.numel))
            for device in devices:
                x = vector.to(device)
                copy = speed(x, x.clone, repeats)
                for compressor in chosen:
                    if matrices == 1 or compressor.name not in SLOW:
                        yield _row(compressor, x, layout, data, copy, repeats)


def _row(compressor: Compressor, x: Tensor, layout: Layout, data: str, copy: float, repeats: int) -> Row:
    encoded = compressor.encode(x, layout, KEY)
    expectation = Expectation(layout, x.dtype, compressor.codecs)
    least = compressor.least_bits(encoded, layout)
    return Row(
        codec=shown(compressor),
        dim=layout.numel,
        data=data,
        device=x.device.type,
        bits_per_coordinate=8 * encoded.payload.size / layout.numel,
        bound_bits_per_coordinate=None if least is None else least / layout.numel,
        relative_error=relative_error(encoded.decoded, x),
        encode_gbps=speed(x, lambda: compressor.encode(x, layout, KEY), repeats),
        decode_gbps=speed(x, lambda: decode(encoded.payload, expectation, KEY, x.device), repeats),
        memcpy_gbps=copy,
    )


def shown(compressor: Compressor) -> str:
    """Its name and the options that are not the default ones."""
    kind = type(compressor)
    given = []
    for name, field in kind.__dataclass_fields__.items():
        value = getattr(compressor, name)
        if isinstance(value, Compressor):
            given.append(shown(value))
        elif value != field.default:
            given.append(f"{name}={value}")
    return compressor.name + (f"({', '.join(given)})" if given else "")


def gauss(count: int) -> np.ndarray:
    """Standard normals (float32)."""
    return np.random.Generator(np.random.Philox(1)).standard_normal(count, dtype=np.float32)


def heavy(count: int) -> np.ndarray:
    """Student's t(3) times a log-normal scale per 4,096 entries (float32)."""
    random = np.random.Generator(np.random.Philox(2))
    scales = np.exp(random.standard_normal(-(-count // 4096)))
    return (random.standard_t(3, count) * np.repeat(scales, 4096)[:count]).astype(np.float32)


DATA: dict[str, Callable[[int], np.ndarray]] = {"gauss": gauss, "heavy": heavy}


def relative_error(decoded: Tensor, x: Tensor) -> float:
    """|decoded - x|^2 / |x|^2, a million entries at a time in float64."""
    wrong = right = 0.0
    for a, b in zip(decoded.split(1 << 20), x.split(1 << 20), strict=True):
        wrong += float(((a - b).double() ** 2).sum())
        right += float((b.double() ** 2).sum())
    return wrong / right if right else 0.0


def speed(x: Tensor, work: Callable[[], object], repeats: int) -> float:
    """GB/s of the fastest run."""
    seconds = []
    for _ in range(repeats):
        _wait(x)
        started = time.perf_counter()
        work()
        _wait(x)
        seconds.append(time.perf_counter() - started)
    return x.numel() * x.element_size() / min(seconds) / 1e9


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


HEADER = (
    f"{'entries':>10} {'data':>5} {'device':>6} {'bits':>8} {'bound':>8} {'x bound':>7} {'error':>9} "
    f"{'encode':>7} {'decode':>7} {'copy':>6}  compressor"
)
FOOTER = "bits and bound: per entry; error: |C(x)-x|^2/|x|^2; encode, decode, copy: GB/s of float32"


def line(row: Row) -> str:
    """One line of the table."""
    bound = row.bound_bits_per_coordinate
    least = f"{bound:>8.4f} {row.bits_per_coordinate / bound:>7.3f}" if bound else f"{'':>16}"
    sizes = f"{row.dim:>10} {row.data:>5} {row.device:>6} {row.bits_per_coordinate:>8.4f} {least}"
    speeds = f"{row.encode_gbps:>7.2f} {row.decode_gbps:>7.2f} {row.memcpy_gbps:>6.1f}"
    return f"{sizes} {row.relative_error:>9.2e} {speeds}  {row.codec}"


if __name__ == "__main__":
    main(sys.argv[1:])
