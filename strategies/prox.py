"""Proximal operators: constraints and regularisers h, as ``prox(v) = argmin_u rate h(u) + |u - v|^2 / 2``.

Parikh and Boyd, "Proximal algorithms", Foundations and Trends in Optimization 2014; the simplex by Michelot, "A finite
algorithm for finding the projection of a point onto the canonical simplex", JOTA 1986.

A method may take such a step on every node (MASHA replays its iterate), so all of this is portable. Box, l1 and l2 are
elementwise. Ball and simplex need a sum over the vector: it is taken in float64 in one fixed order, by adding one half
of the vector to the other until a single number is left, each time by an elementwise addition, which IEEE 754 rounds
one way only. What is left are Python floats, whose ``math.sqrt`` and division are correctly rounded too, and a count of
entries, an exact integer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import Tensor

from thinwire.config import build, nearest
from thinwire.errors import ConfigError
from thinwire.layout import Layout


@dataclass(frozen=True)
class Prox(ABC):
    """``prox_{rate h}``. Call it with a flat vector, the step and the vector's layout; it returns a new vector."""

    @abstractmethod
    def __call__(self, point: Tensor, rate: float, layout: Layout | None = None) -> Tensor:
        """The proximal point, of the same dtype and device. Portable arithmetic."""

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Refuse a layout without the tensors that are meant. Raises ConfigError."""


@dataclass(frozen=True)
class Single(Prox):
    """One h: of the whole vector, or the same of each tensor whose name matches one of the patterns."""

    name: ClassVar[str]
    tensors: tuple[str, ...] = field(default=(), kw_only=True)  # name patterns (*, ?, [...]); empty: one whole vector

    @abstractmethod
    def move(self, piece: Tensor, rate: float) -> Tensor:
        """The proximal point of one flat piece."""

    def __call__(self, point: Tensor, rate: float, layout: Layout | None = None) -> Tensor:
        """``move`` where it is due; other tensors stay. The layout may be missing where there are no patterns."""
        if not self.tensors:
            return self.move(point, rate)
        assert layout is not None, "tensors are named by their layout"
        pieces = (self.move(v, rate) if self._means(entry.name) else v for entry, v in layout.pieces(point))
        return torch.cat(list(pieces))

    def check(self, layout: Layout) -> None:
        """Every pattern must match a tensor."""
        names = [entry.name for entry in layout.entries]
        for pattern in self.tensors:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(f"prox {self.name}: no trained tensor matches {pattern!r}{nearest(pattern, names)}")

    def _means(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.tensors)


@dataclass(frozen=True)
class Joint(Prox):
    """Several, one after the other; exact where they concern different tensors."""

    parts: tuple[Single, ...] = ()

    def __call__(self, point: Tensor, rate: float, layout: Layout | None = None) -> Tensor:
        """Each in its turn."""
        for part in self.parts:
            point = part(point, rate, layout)
        return point

    def check(self, layout: Layout) -> None:
        """As each."""
        for part in self.parts:
            part.check(layout)


@dataclass(frozen=True)
class Box(Single):
    """Entries between ``low`` and ``high``: the nearer bound for those outside."""

    name: ClassVar[str] = "box"
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low = {self.low} must not be above high = {self.high}")

    def move(self, piece: Tensor, rate: float) -> Tensor:
        """Clamped."""
        return piece.clamp(rounded(self.low, piece), rounded(self.high, piece))


@dataclass(frozen=True)
class Ball(Single):
    """Euclidean norm of at most ``radius``: vectors outside are scaled back."""

    name: ClassVar[str] = "ball"
    radius: float = 1.0

    def __post_init__(self) -> None:
        _positive("radius", self.radius)

    def move(self, piece: Tensor, rate: float) -> Tensor:
        """``radius / |v|`` times v where that is below 1."""
        wide = piece.to(torch.float64)
        norm = math.sqrt(fixed_sum(wide * wide))
        return piece * rounded(self.radius / norm, piece) if norm > self.radius else piece.clone()


@dataclass(frozen=True)
class Simplex(Single):
    """Entries at least 0 that sum to ``total``: mixed strategies of a matrix game, one for each of ``tensors``."""

    name: ClassVar[str] = "simplex"
    total: float = 1.0

    def __post_init__(self) -> None:
        _positive("total", self.total)

    def move(self, piece: Tensor, rate: float) -> Tensor:
        """``max(v - theta, 0)``: theta is averaged over the entries that are still above it, until none drops out."""
        wide = piece.to(torch.float64)
        above, count = torch.ones_like(wide, dtype=torch.bool), len(wide)
        theta = 0.0
        while count:
            kept = torch.where(above, wide, torch.zeros_like(wide))
            theta = (fixed_sum(kept) - self.total) / count
            above, before = above & (wide > theta), count
            count = int(above.sum())  # an integer: exact in any order
            if count == before:
                break
        return (wide - theta).clamp(min=0.0).to(piece)


@dataclass(frozen=True)
class L1(Single):
    """``h = weight |u|_1``, which makes entries zero: the soft threshold."""

    name: ClassVar[str] = "l1"
    weight: float = 0.01

    def __post_init__(self) -> None:
        _positive("weight", self.weight)

    def move(self, piece: Tensor, rate: float) -> Tensor:
        """Towards zero by ``rate weight``, and no further."""
        threshold = rounded(rate * self.weight, piece)
        return piece - piece.clamp(-threshold, threshold)


@dataclass(frozen=True)
class L2(Single):
    """``h = weight |u|^2 / 2``, weight decay taken implicitly."""

    name: ClassVar[str] = "l2"
    weight: float = 0.01

    def __post_init__(self) -> None:
        _positive("weight", self.weight)

    def move(self, piece: Tensor, rate: float) -> Tensor:
        """``v / (1 + rate weight)``, as a product: CUDA divides by a scalar with other bits than a CPU."""
        return piece * rounded(1.0 / (1.0 + rate * self.weight), piece)


PROXES: dict[str, type[Single]] = {kind.name: kind for kind in (Ball, Box, L1, L2, Simplex)}
NONE = "none"


def build_prox(options: Any, where: str) -> Prox | None:
    """The prox of ``{"name": ..., options}``, of a bare name, or of a list of such; None for nothing or ``none``.

    Raises ConfigError on unknown names and keys, and on bad values.
    """
    if options is None or options == NONE or options == {"name": NONE}:
        return None
    if isinstance(options, (list, tuple)):
        return Joint(tuple(_single(part, where) for part in options))
    return _single(options, where)


def _single(options: Any, where: str) -> Single:
    options = {"name": options} if isinstance(options, str) else options
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise ConfigError(f"{where} = {options!r} needs a name; known: {', '.join(sorted(PROXES))}, {NONE}")
    name = options["name"]
    if name not in PROXES:
        raise ConfigError(f"unknown {where} {name!r}{nearest(name, [*PROXES, NONE])}")
    plain = {key: value for key, value in options.items() if key != "name"}
    if isinstance(plain.get("tensors"), str):
        plain["tensors"] = (plain["tensors"],)
    return build(PROXES[name], plain, where)


def fixed_sum(values: Tensor) -> float:
    """The sum of a flat float64 tensor in an order that only its length decides: the same bits on every machine."""
    while (count := len(values)) > 1:
        half = count // 2
        folded = values[:half] + values[count - half :]
        values = torch.cat([folded, values[half : half + 1]]) if count % 2 else folded
    return float(values[0]) if count else 0.0


def rounded(value: float, like: Tensor) -> float:
    """A number as the dtype of a tensor holds it: rounded here, before any kernel could do so in its own way."""
    return torch.tensor(value, dtype=like.dtype).item()


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} = {value} must be positive and finite")
