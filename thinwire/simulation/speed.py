"""How fast clients and their wires are: all alike, log-normal, in classes, or as a file says."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

from thinwire.config import build, nearest
from thinwire.errors import ConfigError
from thinwire.random import Key, uniforms
from thinwire.simulation.tables import read_table

BITS = 1e6 / 8  # bytes per second of one Mbit/s
LATENCY_SECONDS = 0.05
EXAMPLE_SECONDS = 0.001


@dataclass(frozen=True)
class Pace:
    """One client's wire and processor."""

    up_mbits: float  # Mbit/s from the client to the server
    down_mbits: float  # Mbit/s from the server to the client
    latency_seconds: float  # of each message, on its way
    example_seconds: float  # of computing, for each example that training goes through

    def __post_init__(self) -> None:
        if not min(self.up_mbits, self.down_mbits) > 0 or min(self.latency_seconds, self.example_seconds) < 0:
            raise ValueError(
                f"up_mbits = {self.up_mbits} and down_mbits = {self.down_mbits} must be above 0, "
                f"latency_seconds = {self.latency_seconds} and example_seconds = {self.example_seconds} at least 0"
            )

    def seconds(self, down_bytes: int, examples: float, up_bytes: int) -> float:
        """From question to answer: request, training, reply."""
        wires = down_bytes / (BITS * self.down_mbits) + up_bytes / (BITS * self.up_mbits)
        return 2 * self.latency_seconds + wires + examples * self.example_seconds


class Speed(ABC):
    """A model of speeds. A frozen dataclass of options (``simulation.speed.KEY``)."""

    name: ClassVar[str]

    @abstractmethod
    def of(self, names: Sequence[str], seed: int) -> Sequence[Pace]:
        """Of these clients, in the order of the roster. Raises ConfigError when a file does not fit."""


@dataclass(frozen=True)
class Constant(Speed):
    """All clients alike."""

    name: ClassVar[str] = "constant"
    up_mbits: float = 10.0  # Mbit/s from client to server
    down_mbits: float = 10.0  # Mbit/s from server to client
    latency_seconds: float = LATENCY_SECONDS  # of each message, on its way
    example_seconds: float = EXAMPLE_SECONDS  # of computing, for each example that training goes through

    def __post_init__(self) -> None:
        self._pace  # noqa: B018  checks the values

    def of(self, names: Sequence[str], seed: int) -> Sequence[Pace]:
        """The same for everybody."""
        return (self._pace,) * len(names)

    @property
    def _pace(self) -> Pace:
        return Pace(self.up_mbits, self.down_mbits, self.latency_seconds, self.example_seconds)


@dataclass(frozen=True)
class LogNormal(Speed):
    """Rates around a median whose logarithms are normal, as measured ones mostly are; up and down go together."""

    name: ClassVar[str] = "log-normal"
    up_mbits: float = 10.0  # median, Mbit/s from client to server
    down_mbits: float = 10.0  # median, Mbit/s from server to client
    latency_seconds: float = LATENCY_SECONDS  # of each message, on its way
    example_seconds: float = EXAMPLE_SECONDS  # median, of computing, for each example that training goes through
    sigma: float = 1.0  # standard deviation of the logarithm of the rates; at 1 one client in 40 has a seventh
    compute_sigma: float = 0.5  # likewise of the seconds per example

    def __post_init__(self) -> None:
        Pace(self.up_mbits, self.down_mbits, self.latency_seconds, self.example_seconds)
        if min(self.sigma, self.compute_sigma) < 0:
            raise ValueError(f"sigma = {self.sigma} and compute_sigma = {self.compute_sigma} must be at least 0")

    def of(self, names: Sequence[str], seed: int) -> Sequence[Pace]:
        """Two factors for each client: one of its wire, one of its processor."""
        return [self._pace(*uniforms(Key(seed, "simulation/speed", client=i), 2)) for i in range(len(names))]

    def _pace(self, wire: float, processor: float) -> Pace:
        faster = _log_normal(self.sigma, wire)
        slower = _log_normal(self.compute_sigma, processor)
        up, down = self.up_mbits * faster, self.down_mbits * faster
        return Pace(up, down, self.latency_seconds, self.example_seconds * slower)


def _log_normal(sigma: float, uniform: float) -> float:
    """exp(sigma z), z the normal quantile of a uniform in [0, 1)."""
    inside = min(max(uniform, 2.0**-54), 1 - 2.0**-53)
    return math.exp(sigma * NormalDist().inv_cdf(inside))


@dataclass(frozen=True)
class Classes(Speed):
    """A mixture of classes of wires, each client in one of them at random."""

    name: ClassVar[str] = "classes"
    up_mbits: tuple[float, ...] = (1.0, 10.0, 100.0)  # of each class, Mbit/s from client to server
    down_mbits: tuple[float, ...] = ()  # of each class, Mbit/s from server to client; empty: as up_mbits
    shares: tuple[float, ...] = ()  # weight of each class; empty: all alike
    latency_seconds: float = LATENCY_SECONDS  # of each message, on its way
    example_seconds: tuple[float, ...] = (EXAMPLE_SECONDS,)  # of each class, or one for all

    def __post_init__(self) -> None:
        count = len(self.up_mbits)
        if not count or len(self.down_mbits) not in (0, count) or len(self.shares) not in (0, count):
            raise ValueError(
                f"{count} up_mbits, {len(self.down_mbits)} down_mbits and {len(self.shares)} shares differ"
            )
        if len(self.example_seconds) not in (1, count):
            raise ValueError(f"{len(self.example_seconds)} example_seconds for {count} classes")
        if self.shares and (min(self.shares) < 0 or not sum(self.shares) > 0):
            raise ValueError(f"shares = {self.shares} must be at least 0, one of them above")
        self._paces  # noqa: B018  checks the values

    def of(self, names: Sequence[str], seed: int) -> Sequence[Pace]:
        """One of the classes for each client."""
        shares = self.shares or (1.0,) * len(self.up_mbits)
        total, paces = sum(shares), self._paces
        found = []
        for index in range(len(names)):
            left = float(uniforms(Key(seed, "simulation/speed", client=index), 1)[0]) * total
            place = 0
            while place < len(shares) - 1 and left >= shares[place]:
                left, place = left - shares[place], place + 1
            found.append(paces[place])
        return found

    @property
    def _paces(self) -> list[Pace]:
        count = len(self.up_mbits)
        examples = self.example_seconds * count if len(self.example_seconds) == 1 else self.example_seconds
        down = self.down_mbits or self.up_mbits
        return [
            Pace(*three[:2], self.latency_seconds, three[2])
            for three in zip(self.up_mbits, down, examples, strict=True)
        ]


@dataclass(frozen=True)
class Measured(Speed):
    """As a file says, which must name every client."""

    name: ClassVar[str] = "file"
    file: str  # CSV or JSON with client, up_mbits, down_mbits, and if need be latency_seconds and example_seconds

    def of(self, names: Sequence[str], seed: int) -> Sequence[Pace]:
        """The rows of the file."""
        found: dict[str, Pace] = {}
        usual = {"latency_seconds": LATENCY_SECONDS, "example_seconds": EXAMPLE_SECONDS}
        for name, numbers in read_table(self.file, ("up_mbits", "down_mbits"), tuple(usual)):
            try:
                found[name] = Pace(**(usual | numbers))
            except ValueError as error:
                raise ConfigError(f"{self.file}, client {name!r}: {error}") from None
        missing = next((name for name in names if name not in found), None)
        if missing is not None:
            raise ConfigError(f"{self.file} has no row for client {missing!r}")
        return [found[name] for name in names]


SPEEDS: Mapping[str, type[Speed]] = {kind.name: kind for kind in (Constant, LogNormal, Classes, Measured)}


def build_speed(options: Mapping[str, Any], where: str = "simulation.speed") -> Speed:
    """The model of ``{"name": ..., options}``. Raises ConfigError."""
    name = str(options.get("name", ""))
    if name not in SPEEDS:
        raise ConfigError(f"unknown {where}.name {name!r}{nearest(name, SPEEDS)}")
    return build(SPEEDS[name], {key: value for key, value in options.items() if key != "name"}, where)


__all__ = ["SPEEDS", "Classes", "Constant", "LogNormal", "Measured", "Pace", "Speed", "build_speed"]
