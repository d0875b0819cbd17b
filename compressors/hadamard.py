"""The randomised Walsh-Hadamard rotation: orthonormal, fast, without padding to speak of, the same bits everywhere.

A span of the vector is cut into chunks of n = 128 to 4,096 entries, n a power of two, and each is multiplied by

    R = H D2 T G D1

D1, D2 are random signs, H the Walsh-Hadamard butterflies, G those but one, and T the missing stage: a reflection of
pairs by 32 angles between 31 and 56 degrees, where a butterfly has 45. R is orthonormal, takes 2 log2(n) steps of
additions, and R x looks like a Gaussian for *every* x.

Why two rounds, and why T. After one round a vector with few large entries has one or two magnitudes, and what is small
beside them never changes a sign. After two plain rounds the large entries still land on a coarse lattice, on zero often
enough that the small ones decide too many signs: signs scaled to be unbiased had a mean that was off by 5 to 8 per cent
of |x| at n = 256. T makes 64 magnitudes of one, and the lattice is gone: 0.35 per cent at most at n = 128, and less
than can be measured (0.15) from n = 256 on, with one to sixteen equal entries above noise of 3e-2 to 1e-5 of them.

Source: Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", SIAM J. Computing 2009; more rounds:
Andoni et al., "Practical and optimal LSH for angular distance", NeurIPS 2015; T is ours.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import DTYPE_NAMES
from thinwire.blocks import each_block
from thinwire.random import Key

ROWS = 4_096  # entries of a chunk, at most
COLUMNS = 32  # chunks side by side in a block, entry for entry, so that every step runs over contiguous memory
LEAST = 128  # entries of a chunk, at least: what remains of a span is padded with zeros to that
ANGLES = 32
SIGN_BITS = 32  # signs per word


@dataclass(frozen=True)
class Run:
    """Blocks of one shape that follow each other: entry i of chunk c stands at ``i * columns + c`` of its block."""

    start: int  # of its entries in the vector
    stop: int
    place: int  # in the rotated vector, a multiple of LEAST
    rows: int  # entries of a chunk: a power of two
    columns: int  # chunks of a block
    count: int = 1  # blocks

    @property
    def block(self) -> int:
        """Entries of a block."""
        return self.rows * self.columns

    @property
    def size(self) -> int:
        """Entries of the run in the rotated vector: stop - start, and the padding of its last block."""
        return self.block * self.count

    def of_block(self, index: int) -> "Run":
        """One of its blocks."""
        first, size = index * self.block, self.block
        start = self.start + first
        return Run(start, min(start + size, self.stop), self.place + first, self.rows, self.columns)


def cut(spans: Iterable[tuple[int, int]]) -> tuple[Run, ...]:
    """The runs of the spans (start, stop), each span in chunks of its own. Part of the format.

    Whole blocks first, then a narrower one, then single chunks that halve. Only the last is padded, to 128
    entries, or by less than a sixteenth of itself.
    """
    runs: list[Run] = []
    place = 0
    for start, stop in spans:
        while start < stop:
            rows, columns, count = _shape(stop - start)
            runs.append(Run(start, min(stop, start + rows * columns * count), place, rows, columns, count))
            start, place = runs[-1].stop, place + runs[-1].size
    return tuple(runs)


def _shape(left: int) -> tuple[int, int, int]:
    """Rows, columns and count of the next run of ``left`` entries."""
    if left >= ROWS * COLUMNS:
        return ROWS, COLUMNS, left // (ROWS * COLUMNS)
    if left >= ROWS:
        return ROWS, left // ROWS, 1
    above = max(LEAST, 1 << (left - 1).bit_length())
    return (above if above == LEAST or above - left < above // 16 else above // 2), 1, 1


def rotated_size(runs: Sequence[Run]) -> int:
    """Entries of the rotated vector."""
    return runs[-1].place + runs[-1].size if runs else 0


def rotate(x: Tensor, runs: Sequence[Run], key: Key) -> Tensor:
    """R x: flat, ``rotated_size(runs)`` long, of the dtype and on the device of x. What no run covers is ignored.

    Entries pass through sums of up to rows^1.5 / 2 = 131,072 times the largest: scale first what may overflow by that.
    """
    out = torch.empty(rotated_size(runs), dtype=x.dtype, device=x.device)
    words, source, target = sign_words(runs, key), native(x.detach()), native(out)

    pieces = pieces_of(runs, accelerator(x.device))

    def work(index: int) -> None:
        run = pieces[index]
        blocks = Blocks(run, words, x.dtype, accelerator(x.device))
        found = blocks.forward(blocks.load(source[run.start : run.stop]))
        target[run.place : run.place + run.size] = found * blocks.norm

    each_piece(pieces, accelerator(x.device), work)
    return out


def rotate_back(z: Tensor, runs: Sequence[Run], key: Key, numel: int) -> Tensor:
    """R^T z: flat, ``numel`` long, of the dtype and on the device of z; zero where no run is."""
    out = torch.zeros(numel, dtype=z.dtype, device=z.device)
    words, source, target = sign_words(runs, key), native(z.detach()), native(out)

    pieces = pieces_of(runs, accelerator(z.device))

    def work(index: int) -> None:
        run = pieces[index]
        blocks = Blocks(run, words, z.dtype, accelerator(z.device))
        found = blocks.backward(blocks.load(source[run.place : run.place + run.size]))
        target[run.start : run.stop] = (found * blocks.norm)[: run.stop - run.start]

    each_piece(pieces, accelerator(z.device), work)
    return out


def accelerator(device: torch.device | str) -> torch.device | None:
    """The device, or None for the CPU, where NumPy does the work."""
    return None if torch.device(device).type == "cpu" else torch.device(device)


def native(values: Tensor) -> Any:
    """The memory of a CPU tensor as a NumPy array; any other tensor itself."""
    return values.numpy() if accelerator(values.device) is None else values


def pieces_of(runs: Sequence[Run], device: torch.device | None) -> list[Run]:
    """What is worked on at once: single blocks, which fit the cache, on the CPU; whole runs on an accelerator."""
    if device is not None:
        return list(runs)
    return [run.of_block(index) if run.count > 1 else run for run in runs for index in range(run.count)]


def each_piece(pieces: Sequence[Run], device: torch.device | None, work: Callable[[int], None]) -> None:
    """``work(index)`` for every piece, on the CPU on the threads of the run."""
    each_block(len(pieces), 1, lambda index, _: work(index), fewest=8 if device is None else len(pieces) + 1)


def sign_words(runs: Sequence[Run], key: Key) -> NDArray[np.uint32]:
    """The signs of a whole vector: two bits for every entry of the rotated vector, D1 and D2 of a block together."""
    bits = 2 * rotated_size(runs)
    return key.at("signs").words(-(-bits // 64)).astype("<u8").view("<u4").astype(np.uint32)


class Blocks:
    """The blocks of one run: their signs, and both directions of R on them.

    Works on NumPy arrays (device None) and on tensors alike: the same operations in the same order, so the same bits.
    """

    def __init__(
        self, run: Run, words: NDArray[np.uint32], dtype: torch.dtype, device: torch.device | None = None
    ) -> None:
        self.run, self.dtype, self.device = run, dtype, device
        self.norm = 2.0 / run.rows  # what ``forward`` and ``backward`` leave out: a power of two
        self._module: Any = np if device is None else torch
        own = words[2 * run.place // SIGN_BITS : 2 * (run.place + run.size) // SIGN_BITS]
        self._signs = self._at_the_top(own.reshape(run.count, 2, 1, run.block // SIGN_BITS))
        self._cosines, self._sines = (self.constant(table[:, None]) for table in _TURNS)

    def load(self, values: Any) -> Any:
        """A copy of the run's entries, with zeros for the padding."""
        out = self.empty()
        out[: len(values)] = values
        out[len(values) :] = 0
        return out

    def empty(self) -> Any:
        """An array as long as the run, of its dtype, on its device."""
        if self.device is None:
            return np.empty(self.run.size, DTYPE_NAMES[self.dtype])
        return torch.empty(self.run.size, dtype=self.dtype, device=self.device)

    def constant(self, table: NDArray[np.float64]) -> Any:
        """Constants rounded to the dtype, on the device."""
        rounded = table.astype(DTYPE_NAMES[self.dtype])
        return rounded if self.device is None else torch.from_numpy(rounded).to(self.device)

    def forward(self, values: Any) -> Any:
        """R x divided by ``norm``; ``values`` are used up. No entry is above rows^1.5 / 2 times the largest."""
        spare = self.empty()
        self._flip(values, 0)
        values, spare = self._butterflies(values, spare, self.run.rows // 2 // ANGLES)
        values, spare = self._turn(values, spare)
        self._flip(values, 1)
        return self._butterflies(values, spare)[0]

    def backward(self, values: Any) -> Any:
        """R^T z divided by ``norm``; ``values`` are used up."""
        spare = self.empty()
        values, spare = self._butterflies(values, spare)
        self._flip(values, 1)
        values, spare = self._turn(values, spare)
        values, _ = self._butterflies(values, spare, self.run.rows // 2 // ANGLES)
        self._flip(values, 0)
        return values

    def _butterflies(self, values: Any, spare: Any, skipped: int = 0) -> tuple[Any, Any]:
        """(a, b) -> (a + b, a - b) for entries of a chunk whose indices differ in one bit, for every bit but one."""
        half = self.run.rows // 2
        while half:
            if half != skipped:
                pairs, out = (array.reshape(-1, 2, half * self.run.columns) for array in (values, spare))
                self._module.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
                self._module.subtract(pairs[:, 0], pairs[:, 1], out=out[:, 1])
                values, spare = spare, values
            half //= 2
        return values, spare

    def _turn(self, values: Any, spare: Any) -> tuple[Any, Any]:
        """(a, b) -> (c a + s b, s a - c b) / sqrt(2), with another angle for each of 32 groups of pairs."""
        module, c, s = self._module, self._cosines, self._sines
        pairs, out = (array.reshape(self.run.count, ANGLES, 2, -1) for array in (values, spare))
        a, b, above, below = pairs[:, :, 0], pairs[:, :, 1], out[:, :, 0], out[:, :, 1]
        scratch = b * s
        module.multiply(a, c, out=above)
        module.add(above, scratch, out=above)
        module.multiply(b, c, out=scratch)
        module.multiply(a, s, out=below)
        module.subtract(below, scratch, out=below)
        return spare, values

    def _flip(self, values: Any, which: int) -> None:
        """Change signs in place: bit b, from the top, of word w is the sign of entry ``b * words + w`` of the block."""
        single = self.dtype == torch.float32
        kind: Any
        shifts: Any
        if self.device is None:
            kind = np.uint32 if single else np.uint64
            shifts, top = np.arange(SIGN_BITS, dtype=kind)[:, None], kind(1 << (31 if single else 63))
        else:
            kind = torch.int32 if single else torch.int64
            shifts = torch.arange(SIGN_BITS, dtype=kind, device=self.device)[:, None]
            top = -(1 << (31 if single else 63))
        mask: Any = self._signs[:, which] << shifts
        mask &= top
        bits = values.view(kind).reshape(self.run.count, SIGN_BITS, -1)
        bits ^= mask

    def _at_the_top(self, words: NDArray[np.uint32]) -> Any:
        """The words as the highest bits of integers as wide as the dtype."""
        single = self.dtype == torch.float32
        wide: NDArray[Any] = words if single else words.astype(np.uint64) << np.uint64(32)
        if self.device is None:
            return wide
        return torch.from_numpy(wide.view(np.int32 if single else np.int64).copy()).to(self.device)


def _turns() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines and sines over sqrt(2) by tangents of the half angle: rational, so the same on every machine."""
    tangents = np.array([36 + 13 * index % ANGLES for index in range(ANGLES)]) / 128
    squares = tangents * tangents
    return (1 - squares) / (1 + squares) * _ROOT, 2 * tangents / (1 + squares) * _ROOT


_ROOT = math.sqrt(0.5)
_TURNS = _turns()
