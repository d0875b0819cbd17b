"""One job of the laboratory: an entry on the problem of one seed, its step found as the entry says."""

from dataclasses import dataclass
from functools import lru_cache

from strategies.base import Method
from strategies.loop import run
from strategies.trace import Trace
from strategies.tuning import tune
from thinwire.errors import ConfigError
from thinwire.lab.experiment import Case, Entry, Fixed, Measured, Settings, Theory, Tuned
from thinwire.lab.registry import find
from thinwire.lab.results import Result

COARSE, FINE = 2.0, 1.2  # factors of the search: first far, then near


@dataclass(frozen=True)
class Job:
    """Small enough to be sent to another process, which finds the rest by name."""

    experiment: str
    settings: Settings
    case: str
    label: str
    seed: int
    most_rounds: int = 0  # 0: as many as the case allows

    def __call__(self) -> Result:
        """Run it. Raises ConfigError naming the entry."""
        entry = entries(self.experiment, self.settings)[self.case, self.label]
        try:
            return Bench(
                entry, self._case(entry), _problem(self.experiment, self.settings, self.case, self.seed)
            ).result(self.case, self.seed)
        except (ConfigError, ValueError) as error:  # of a search that found no optimum
            raise ConfigError(f"{self.experiment}, {self.label}: {error}") from None

    def _case(self, entry: Entry) -> Case:
        case = _cases(self.experiment, self.settings)[self.case]
        rounds = min(most for most in (case.rounds, self.most_rounds, entry.most_rounds) if most)
        return Case(case.open, case.target, rounds, case.error)


@dataclass(frozen=True)
class Bench:
    """An entry, and the problem that it is to be run on."""

    entry: Entry
    case: Case
    problem: Measured

    def result(self, case: str, seed: int) -> Result:
        """Find the step, and run with it."""
        step, trace = self._run(seed)
        return Result.of(self.entry, (case, self.case), seed, step, self._theory(seed), trace)

    def _run(self, seed: int) -> tuple[float, Trace]:
        step = self.entry.step
        if isinstance(step, Theory):
            rate = step.times * self.entry.theory(self.problem, seed).rate
        elif isinstance(step, Fixed):
            rate = step.rate / self._scale(step)
        else:
            return self._search(step.start / self._scale(step), seed)
        trace = run(
            self._at(rate),
            self.problem,
            self.case.rounds,
            participation=self.entry.participation,
            seed=seed,
            until=self.case.target,
            check=not self.entry.refused,
            audit=False,
        )
        return rate, trace

    def _scale(self, step: Fixed | Tuned) -> float:
        return self.problem.constants.L if step.in_1_over_L else 1.0

    def _search(self, start: float, seed: int) -> tuple[float, Trace]:
        """The same for every method: a coarse walk, and a fine one from where it ended."""
        found = None
        for factor in (COARSE, FINE):
            found = tune(
                self._at,
                self.problem,
                start if found is None else found.rate,
                self.case.target,
                self.case.rounds,
                factor=factor,
                participation=self.entry.participation,
                seed=seed,
                check=not self.entry.refused,
                audit=False,
                must_reach=False,
                known=found,
            )
        assert found is not None
        return found.rate, found.trace

    def _at(self, rate: float) -> Method:
        return self.entry.at(rate, self.problem)

    def _theory(self, seed: int) -> tuple[float | None, str | None]:
        """Its step and its promise, where there are any."""
        try:
            theory = self.entry.theory(self.problem, seed)
        except ConfigError:
            return None, None
        return theory.rate, theory.promise.value


def entries(experiment: str, settings: Settings) -> dict[tuple[str, str], Entry]:
    """(case, label) to entry; an entry of several figures is run once."""
    found: dict[tuple[str, str], Entry] = {}
    for figure in find(experiment).figures(settings):
        for entry in figure.entries:
            same = found.setdefault((figure.case, entry.label), entry)
            assert same == entry, f"{experiment}: two entries of {figure.case} are called {entry.label!r}"
    return found


@lru_cache(maxsize=8)
def _cases(experiment: str, settings: Settings) -> dict[str, Case]:
    return dict(find(experiment).cases(settings))


@lru_cache(maxsize=2)
def _problem(experiment: str, settings: Settings, case: str, seed: int) -> Measured:
    """Drawn once per process."""
    return _cases(experiment, settings)[case].open(seed)
