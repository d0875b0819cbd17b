"""Rates tuned by one search for all: a geometric grid, extended until its optimum is interior."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strategies.base import Method
from strategies.loop import Problem, run
from strategies.trace import Trace

MOST_RUNS = 60  # of a walk; with a factor of 1.25 they cover six decades
PATIENCE = 1.5  # a rate is given up after this many times the rounds of the best one


@dataclass(frozen=True)
class Tuned:
    """The best rate of a grid, what it cost, and the run itself."""

    rate: float
    uplink_bytes: float  # per client to the target; infinite if it was never reached
    trace: Trace

    @property
    def rank(self) -> tuple[float, float, int]:
        """Smaller is better: fewest bytes to the target; else where the error settled; else how long it lasted."""
        return self.uplink_bytes, settled(self.trace.errors), -len(self.trace.uplink_bytes)


def settled(errors: Sequence[float]) -> float:
    """Where a run that has not reached its target stands: the median of its last tenth; infinite if it diverged."""
    return math.inf if math.isinf(errors[-1]) else statistics.median(errors[-max(1, len(errors) // 10) :])


def tune(
    make: Callable[[float], Method],
    problem: Problem,
    start: float,
    target: float,
    rounds: int,
    *,
    factor: float = 1.25,
    participation: float = 1.0,
    seed: int = 0,
    check: bool = True,
    audit: bool = True,
    must_reach: bool = True,
    known: Tuned | None = None,
) -> Tuned:
    """The rate of ``start * factor^j`` that needs the fewest uplink bytes to ``target`` within ``rounds``.

    Walks from ``start`` in the direction that improves until both neighbours of the best are worse. Where no rate
    reaches the target, the one whose error settles lowest is best; raises ValueError then if ``must_reach``, and where
    the best is still at an end of the grid after 60 runs. ``check`` and ``audit`` are those of
    ``strategies.loop.run``; ``known`` is what another search found at ``start``.
    """
    tried: dict[int, Tuned] = {} if known is None else {0: known}

    def at(exponent: int) -> Tuned:
        if exponent not in tried:
            reached = [len(t.trace.uplink_bytes) for t in tried.values() if math.isfinite(t.uplink_bytes)]
            trace = run(
                make(start * factor**exponent),
                problem,
                min(rounds, math.ceil(PATIENCE * min(reached, default=rounds))),
                participation=participation,
                seed=seed,
                until=target,
                check=check,
                audit=audit,
            )
            tried[exponent] = Tuned(start * factor**exponent, trace.uplink_to(target), trace)
        return tried[exponent]

    best = min((0, 1, -1), key=lambda exponent: at(exponent).rank)
    while (nearby := min((best, best - 1, best + 1), key=lambda exponent: at(exponent).rank)) != best:
        best = nearby
        if len(tried) > MOST_RUNS:
            raise ValueError(
                f"after {MOST_RUNS} runs from {start} the best rate is still the last, {at(best).rate:.3g}"
            )
    if must_reach and math.isinf(at(best).uplink_bytes):
        raise ValueError(f"no rate near {start} reaches {target} within {rounds} rounds; start elsewhere")
    return at(best)
