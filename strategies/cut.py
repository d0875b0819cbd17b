"""How the named arrays of somebody's model are cut: a vector that is compressed, and the rest, which travels as it is.

For models of which nothing is known but their arrays: integers and booleans (step counters) cannot be compressed, and
statistics of BatchNorm should not be: error feedback may overshoot, and a variance must not fall below zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.layout import Entry, Layout

AnyArray = NDArray[Any]
NamedArrays = Mapping[str, AnyArray]

STATISTICS = ("*running_mean", "*running_var")
"""PyTorch's names of the statistics of BatchNorm and its relatives."""

CARRIED = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
"""The dtypes of arrays that travel as they are, as NumPy writes them; each takes three bytes before its values."""

TAG_BYTES = 3
MOST_ENTRIES = 1 << 36


@dataclass(frozen=True)
class Piece:
    """One named array of the model."""

    name: str
    dtype: str  # one of CARRIED, as the model began
    shape: tuple[int, ...]
    compressed: bool

    @property
    def numel(self) -> int:
        """Number of scalars."""
        return prod(self.shape)


@dataclass(frozen=True)
class Cut:
    """The arrays of a model in their order, and which of them are compressed."""

    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        if not any(piece.compressed for piece in self.pieces):
            raise ConfigError("the model has no array of floating point that may be compressed")

    @staticmethod
    def of(arrays: NamedArrays, dense: Sequence[str] = STATISTICS) -> "Cut":
        """Compress what is floating point, not empty, and has no name that fits a pattern in ``dense``.

        Raises ConfigError for dtypes that Flower's NumPy arrays have and this wire has not (complex, objects), and for
        values that are not finite where they would be compressed: masks with minus infinity belong to ``dense``.
        """
        pieces = []
        for name, array in arrays.items():
            _check_carried(name, array)
            spared = any(fnmatchcase(name, pattern) for pattern in dense)
            compressed = array.dtype.kind == "f" and array.size > 0 and not spared
            if compressed and not bool(np.isfinite(array).all()):
                raise ConfigError(f"array {name!r} holds a value that is not finite; if it may, name it in dense")
            pieces.append(Piece(name, array.dtype.str, array.shape, compressed))
        return Cut(tuple(pieces))

    @cached_property
    def layout(self) -> Layout:
        """The vector's: compressed arrays only."""
        return Layout(tuple(Entry(piece.name, piece.shape) for piece in self.pieces if piece.compressed))

    @cached_property
    def dtype(self) -> torch.dtype:
        """The vector's: float64 if any compressed array is, else float32."""
        wide = any(piece.compressed and piece.dtype == "<f8" for piece in self.pieces)
        return torch.float64 if wide else torch.float32

    @property
    def spared(self) -> list[Piece]:
        """The arrays that travel as they are."""
        return [piece for piece in self.pieces if not piece.compressed]

    def fits(self, arrays: NamedArrays) -> bool:
        """Whether these are the arrays of this model, by names and shapes."""
        return {name: tuple(a.shape) for name, a in arrays.items()} == {p.name: p.shape for p in self.pieces}

    def vector(self, arrays: NamedArrays) -> Tensor:
        """The compressed arrays as one flat vector, a copy. Raises ConfigError where one is missing or misshapen."""
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        vector = np.empty(self.layout.numel, dtype)
        for entry, (start, stop) in zip(self.layout.entries, pairwise(self.layout.offsets), strict=True):
            vector[start:stop] = _find(arrays, entry.name, entry.shape).reshape(-1)
        return torch.from_numpy(vector)

    def rest(self, arrays: NamedArrays) -> bytes:
        """The other arrays as bytes, exactly; each says its dtype, which aggregation changes. Raises ConfigError."""
        parts: list[bytes] = []
        for piece in self.spared:
            array = _find(arrays, piece.name, piece.shape)
            _check_carried(piece.name, array)
            parts += (array.dtype.str.encode(), array.tobytes())
        return b"".join(parts)

    def read_rest(self, data: bytes, like: NamedArrays | None = None) -> dict[str, AnyArray]:
        """What ``rest`` wrote, from a peer. Raises WireError on anything else, before memory is taken.

        With ``like``, a value that is not finite is taken only where there is one in ``like``.
        """
        found, start = {}, 0
        for piece in self.spared:
            tag = data[start : start + TAG_BYTES].decode("latin-1")
            if tag not in CARRIED:
                raise WireError(f"array {piece.name!r} has dtype {tag!r}; allowed: {', '.join(CARRIED)}")
            stop = start + TAG_BYTES + piece.numel * np.dtype(tag).itemsize
            if stop > len(data):
                raise WireError(f"array {piece.name!r} is cut off")
            flat = np.frombuffer(data[start + TAG_BYTES : stop], np.uint8)
            if tag == "|b1" and bool((flat > 1).any()):
                raise WireError(f"array {piece.name!r} holds a boolean that is neither 0 nor 1")
            found[piece.name] = flat.view(tag).reshape(piece.shape).copy()
            if like is not None:
                _check_finite(piece.name, found[piece.name], like[piece.name])
            start = stop
        if start != len(data):
            raise WireError(f"{len(data) - start} bytes follow the arrays that travel as they are")
        return found

    def join(self, vector: Tensor, rest: NamedArrays) -> dict[str, AnyArray]:
        """All arrays in their order: the vector's in the dtypes that the model began with, the rest as given."""
        views = self.layout.unflatten(vector.cpu())
        return {p.name: views[p.name].numpy().astype(p.dtype) if p.compressed else rest[p.name] for p in self.pieces}

    def to_plain(self) -> list[list[Any]]:
        """For JSON."""
        return [[p.name, p.dtype, list(p.shape), p.compressed] for p in self.pieces]

    @staticmethod
    def of_plain(plain: Any) -> "Cut":
        """What ``to_plain`` gave, from a peer. Raises WireError."""
        try:
            pieces = tuple(Piece(str(n), str(d), tuple(int(s) for s in shape), bool(c)) for n, d, shape, c in plain)
        except (TypeError, ValueError):
            raise WireError("the description of the model's arrays is malformed") from None
        wrong = [p.name for p in pieces if p.dtype not in CARRIED or any(size < 0 for size in p.shape)]
        if wrong or sum(p.numel for p in pieces) > MOST_ENTRIES or len({p.name for p in pieces}) != len(pieces):
            raise WireError("the description of the model's arrays has impossible dtypes, sizes or names")
        chosen = [piece for piece in pieces if piece.compressed]
        if not chosen or any(p.dtype[1] != "f" or not p.numel for p in chosen):
            raise WireError("only arrays of floating point that are not empty can be compressed, and one must be")
        return Cut(pieces)


def _find(arrays: NamedArrays, name: str, shape: tuple[int, ...]) -> AnyArray:
    if name not in arrays:
        raise ConfigError(f"array {name!r} is missing; the model began with it")
    if tuple(arrays[name].shape) != shape:
        raise ConfigError(f"array {name!r} has shape {tuple(arrays[name].shape)}; the model began with {shape}")
    return arrays[name]


def _check_carried(name: str, array: AnyArray) -> None:
    if array.dtype.str not in CARRIED:
        raise ConfigError(f"array {name!r} has dtype {array.dtype.str!r}; allowed: {', '.join(CARRIED)}")


def _check_finite(name: str, array: AnyArray, like: AnyArray) -> None:
    if array.dtype.kind == "f" and bool((~np.isfinite(array) & np.isfinite(like)).any()):
        raise WireError(f"array {name!r} holds a value that is not finite")
