"""When clients are there: always, but for drop-outs, by day and night, or as a trace says."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thinwire.config import build, nearest
from thinwire.errors import ConfigError
from thinwire.random import Key, uniforms
from thinwire.simulation.tables import read_table

Flags = NDArray[np.bool_]
TICKS = 1440  # of a period: clients come and go on the minute of a day


class Presence(ABC):
    """When the clients of one run are there, in seconds of the simulated clock; the same for the same seed."""

    @abstractmethod
    def online(self, seconds: float) -> Flags:
        """Who is there, by index; constant until ``next_change``."""

    @abstractmethod
    def leaves(self, client: int, seconds: float) -> float:
        """When a client that is there goes; infinity where it stays."""

    @abstractmethod
    def next_change(self, seconds: float) -> float:
        """When ``online`` may next have another answer; infinity where it has none."""

    @abstractmethod
    def vanishes(self, client: int, question: int) -> float | None:
        """The share in [0, 1) of a client's work on a question at which it is gone; None where it gets to the end."""


class Availability(ABC):
    """A model of who is there. A frozen dataclass of options (``simulation.availability.KEY``)."""

    name: ClassVar[str]

    @abstractmethod
    def of(self, names: Sequence[str], seed: int) -> Presence:
        """Of these clients, in the order of the roster. Raises ConfigError when a file does not fit."""


@dataclass(frozen=True)
class Steady(Presence):
    """Everybody is always there, and answers all questions but some."""

    clients: int
    probability: float
    seed: int

    def online(self, seconds: float) -> Flags:
        """Everybody."""
        return np.ones(self.clients, dtype=bool)

    def leaves(self, client: int, seconds: float) -> float:
        """Never."""
        return math.inf

    def next_change(self, seconds: float) -> float:
        """Never."""
        return math.inf

    def vanishes(self, client: int, question: int) -> float | None:
        """With the probability, independently for each question."""
        if not self.probability:
            return None
        fate, share = uniforms(Key(self.seed, "simulation/drop-out", question, client), 2)
        return float(share) if fate < self.probability else None


@dataclass(frozen=True)
class Always(Availability):
    """Everybody is there, all the time."""

    name: ClassVar[str] = "always"

    def of(self, names: Sequence[str], seed: int) -> Presence:
        """Nobody ever fails."""
        return Steady(len(names), 0.0, seed)


@dataclass(frozen=True)
class DropOut(Availability):
    """Each client that is asked vanishes before its answer with some probability, and is back for the next round."""

    name: ClassVar[str] = "drop-out"
    probability: float = 0.1  # in [0, 1], for each question to each client

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability = {self.probability} is not in [0, 1]")

    def of(self, names: Sequence[str], seed: int) -> Presence:
        """Independent coins."""
        return Steady(len(names), self.probability, seed)


@dataclass(frozen=True)
class Rhythm(Presence):
    """Each client is there for the first ``share`` of its own period, which begins at its own phase."""

    period: float
    share: float
    phases: NDArray[np.float64]  # in [0, 1)

    def online(self, seconds: float) -> Flags:
        """Who is within its share at the last tick."""
        return self._within(self._tick(seconds)) < self.share

    def leaves(self, client: int, seconds: float) -> float:
        """The first tick at which its share is over."""
        if self.share >= 1:
            return math.inf
        tick = self._tick(seconds)
        left = max(1, math.ceil((self.share - float(self._within(tick)[client])) * TICKS - 1e-6))
        return (tick + left) * self.period / TICKS

    def next_change(self, seconds: float) -> float:
        """The next tick."""
        return math.inf if self.share >= 1 else (self._tick(seconds) + 1) * self.period / TICKS

    def vanishes(self, client: int, question: int) -> float | None:
        """Never out of turn."""
        return None

    def _tick(self, seconds: float) -> int:
        return math.floor(seconds * TICKS / self.period + 1e-9)  # a tick belongs to what it begins

    def _within(self, tick: int) -> NDArray[np.float64]:
        return (tick / TICKS + self.phases) % 1.0


@dataclass(frozen=True)
class DayNight(Availability):
    """Each client is there for a share of each day, as phones are that charge at night; each has its own midnight."""

    name: ClassVar[str] = "day-night"
    period_seconds: float = 86_400.0  # of a day
    share: float = 0.5  # of the day during which a client is there, in (0, 1]
    spread: float = 1.0  # of the day over which the clients' days begin: 0 all at once, 1 evenly around the clock

    def __post_init__(self) -> None:
        if not self.period_seconds > 0 or not 0 < self.share <= 1 or not 0 <= self.spread <= 1:
            raise ValueError(
                f"period_seconds = {self.period_seconds} must be above 0, share = {self.share} in (0, 1], "
                f"spread = {self.spread} in [0, 1]"
            )

    def of(self, names: Sequence[str], seed: int) -> Presence:
        """A phase for each client."""
        phases = [uniforms(Key(seed, "simulation/phase", client=index), 1)[0] for index in range(len(names))]
        return Rhythm(self.period_seconds, self.share, self.spread * np.array(phases))


@dataclass(frozen=True)
class Spans(Presence):
    """Each client is there in the spans of time that were written down for it."""

    starts: NDArray[np.float64]  # ascending for each client, all clients one after the other
    ends: NDArray[np.float64]
    owners: NDArray[np.int64]
    clients: int
    edges: NDArray[np.float64]  # all starts and ends, ascending

    def online(self, seconds: float) -> Flags:
        """Who is within a span, its end excluded."""
        flags = np.zeros(self.clients, dtype=bool)
        flags[self.owners[(self.starts <= seconds) & (seconds < self.ends)]] = True
        return flags

    def leaves(self, client: int, seconds: float) -> float:
        """The end of the span, or of those that go on where it ends."""
        own = self.owners == client
        end = seconds
        for start, stop in zip(self.starts[own].tolist(), self.ends[own].tolist(), strict=True):
            if start <= end < stop:
                end = stop
        return end

    def next_change(self, seconds: float) -> float:
        """The next start or end of any client."""
        place = int(np.searchsorted(self.edges, seconds, side="right"))
        return float(self.edges[place]) if place < len(self.edges) else math.inf

    def vanishes(self, client: int, question: int) -> float | None:
        """Never within a span."""
        return None


@dataclass(frozen=True)
class Trace(Availability):
    """Clients are there when a file says so; a client that it does not name never is."""

    name: ClassVar[str] = "trace"
    file: str  # CSV with the columns client, from, to (seconds), or a JSON list of such objects

    def of(self, names: Sequence[str], seed: int) -> Presence:
        """The rows of the file."""
        places = {name: index for index, name in enumerate(names)}
        spans = []
        for name, numbers in read_table(self.file, ("from", "to")):
            if name not in places:
                raise ConfigError(f"{self.file} names client {name!r}; the clients are {names[0]} to {names[-1]}")
            if numbers["to"] <= numbers["from"]:
                raise ConfigError(f"{self.file}: client {name!r} is there from {numbers['from']} to {numbers['to']}")
            spans.append((places[name], numbers["from"], numbers["to"]))
        table = np.array(sorted(spans), dtype=np.float64).reshape(-1, 3)
        return Spans(table[:, 1], table[:, 2], table[:, 0].astype(np.int64), len(names), np.unique(table[:, 1:]))


AVAILABILITIES: Mapping[str, type[Availability]] = {kind.name: kind for kind in (Always, DropOut, DayNight, Trace)}


def build_availability(options: Mapping[str, Any], where: str = "simulation.availability") -> Availability:
    """The model of ``{"name": ..., options}``. Raises ConfigError."""
    name = str(options.get("name", ""))
    if name not in AVAILABILITIES:
        raise ConfigError(f"unknown {where}.name {name!r}{nearest(name, AVAILABILITIES)}")
    return build(AVAILABILITIES[name], {key: value for key, value in options.items() if key != "name"}, where)


__all__ = ["AVAILABILITIES", "Always", "Availability", "DayNight", "DropOut", "Presence", "Trace", "build_availability"]
