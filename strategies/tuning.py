"""Rates tuned by one search for all: a geometric grid, extended until its optimum is interior."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from strategies.base import Method
from strategies.loop import Problem, run
from strategies.trace import Trace


@dataclass(frozen=True)
class Tuned:
    """The best rate of a grid, what it cost, and the run itself."""

    rate: float
    uplink_bytes: float  # per client to the target
    trace: Trace


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
) -> Tuned:
    """The rate of ``start * factor^j`` that needs the fewest uplink bytes to ``target`` within ``rounds``.

    Walks from ``start`` in the direction that improves until both neighbours of the best are worse. Raises ValueError
    when neither ``start`` nor its neighbours reach the target.
    """
    tried: dict[int, Tuned] = {}

    def at(exponent: int) -> Tuned:
        if exponent not in tried:
            rate = start * factor**exponent
            trace = run(make(rate), problem, rounds, participation=participation, seed=seed, until=target)
            tried[exponent] = Tuned(rate, trace.uplink_to(target), trace)
        return tried[exponent]

    best = min((0, 1, -1), key=lambda exponent: at(exponent).uplink_bytes)
    if math.isinf(at(best).uplink_bytes):
        raise ValueError(f"no rate near {start} reaches {target} within {rounds} rounds; start elsewhere")
    while True:
        nearby = min((best, best - 1, best + 1), key=lambda exponent: at(exponent).uplink_bytes)
        if nearby == best:
            return at(best)
        best = nearby
