"""What an experiment is: problems, methods on them and the figures that are drawn, all of it data."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from strategies.base import Federation, Method
from strategies.builder import STEPS, build_method
from strategies.descent import Work
from strategies.estimator import Estimator
from strategies.loop import Problem
from strategies.registry import find_method
from strategies.theory import Constants
from strategies.theory import Theory as Promised

IDENTITY: Mapping[str, Any] = {"name": "identity"}


class Measured(Problem, Protocol):
    """A problem of the laboratory: it also knows the constants that theory asks for."""

    @property
    def constants(self) -> Constants: ...  # noqa: D102  raises ConfigError where nobody knows them


@dataclass(frozen=True)
class Settings:
    """What the operator asks of an experiment."""

    quick: bool = False  # small problems and few methods: seconds instead of minutes
    data: Path | None = None  # a LIBSVM file, for the experiments that take one


@dataclass(frozen=True)
class Theory:
    """The step of the method's own theory, times a factor."""

    times: float = 1.0

    def __str__(self) -> str:
        return "theory" if self.times == 1 else f"theory x {self.times:g}"


@dataclass(frozen=True)
class Tuned:
    """The step that needs the fewest uplink bytes to the target, found by the same search for every method."""

    start: float = 1.0  # where the search begins
    in_1_over_L: bool = True  # noqa: N815  whether ``start`` is a multiple of 1/L

    def __str__(self) -> str:
        return "tuned"


@dataclass(frozen=True)
class Fixed:
    """A given step."""

    rate: float
    in_1_over_L: bool = False  # noqa: N815  whether ``rate`` is a multiple of 1/L

    def __str__(self) -> str:
        return "fixed"


Step = Theory | Tuned | Fixed


Adapt = Callable[[Method, Measured, float | None], Method]
"""A method made fit for a problem, at a step; None: before theory is asked for one."""


@dataclass(frozen=True)
class Entry:
    """One curve: a method with its compressors, and how it is to step. The label names it within its case."""

    label: str
    method: Mapping[str, Any]  # as in a configuration: {"name": ..., options}
    uplink: Mapping[str, Any] = field(default_factory=lambda: IDENTITY)
    downlink: Mapping[str, Any] = field(default_factory=lambda: IDENTITY)
    step: Step = field(default_factory=Theory)
    work: Work = "full"  # for the methods that leave it open
    participation: float = 1.0
    refused: bool = False  # run although theory refuses it, to show why
    most_rounds: int = 0  # fewer than the case allows, for what is known to stop short of the target; 0: as many
    adapt: Adapt | None = None  # what depends on the problem, and no configuration can say

    def at(self, rate: float, problem: Measured) -> Method:
        """The method for a problem with a step. Raises ConfigError."""
        method = self.build().at(rate)
        return method if self.adapt is None else self.adapt(method, problem, rate)

    def theory(self, problem: Measured, seed: int) -> Promised:
        """What its theory says of a problem. Raises ConfigError where it has none."""
        method = self.build() if self.adapt is None else self.adapt(self.build(), problem, None)
        return method.theory(problem.constants, federation_of(problem, seed), self.participation)

    def build(self) -> Method:
        """The method, with a step still to be set. Raises ConfigError."""
        kind = find_method(str(self.method["name"]))
        open_work = issubclass(kind, Estimator) or any(f.name == "work" for f in dataclasses.fields(kind))
        work = self.work if open_work else STEPS
        return build_method(self.method, self.uplink, self.downlink, work=work, check=not self.refused)


@dataclass(frozen=True)
class Case:
    """A problem, drawn by the seed, and how long a method may work on it."""

    open: Callable[[int], Measured]
    target: float  # the error at which a run ends; 0: at ``rounds``
    rounds: int
    error: str = "relative squared error"  # what the problem measures


@dataclass(frozen=True)
class Figure:
    """Curves that are drawn, and listed in a table, together. The first is the yardstick."""

    name: str  # of its files
    title: str
    case: str
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Experiment:
    """One file of the laboratory."""

    name: str
    summary: str
    cases: Callable[[Settings], Mapping[str, Case]]
    figures: Callable[[Settings], Sequence[Figure]]
    takes_data: bool = False  # whether ``--data`` means something here
    also: Callable[[Settings, int, Path], Sequence[Path]] | None = None  # what else it measures: seeds, folder; files


def federation_of(problem: Problem, seed: int) -> Federation:
    """The clients of a problem, with equal weights."""
    return Federation.uniform(problem.layout, len(problem.oracles), seed, problem.x0.dtype)


def describe(options: Mapping[str, Any]) -> str:
    """A method or compressor in a few words: ``rand-k fraction=0.1``."""
    given = (f"{key}={describe(v) if isinstance(v, Mapping) else v}" for key, v in options.items() if key != "name")
    return " ".join([str(options.get("name", "identity")), *given])
