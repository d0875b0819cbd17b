"""Curves of runs: their metrics against rounds, seconds, uplink bytes and all bytes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from thinwire.errors import ConfigError

SIMULATED = "simulated_seconds"  # of a round over links that are modelled, in a row
HIGHER_IS_BETTER = frozenset({"accuracy"})


@dataclass(frozen=True)
class Curve:
    """One run, at the rounds that were evaluated."""

    name: str
    rounds: Sequence[int]
    uplink_bytes: Sequence[int]  # sent until then, all clients together
    total_bytes: Sequence[int]  # both ways
    metrics: Mapping[str, Sequence[float]]  # loss, and accuracy in [0, 1] where the task has one; nan: not finite
    seconds: Sequence[float] = ()  # that the rounds took until then
    simulated_seconds: Sequence[float] = ()  # likewise, over modelled links; empty where there are none

    @staticmethod
    def of(name: str, rows: Sequence[Mapping[str, Any]]) -> "Curve":
        """From the rows of a run, one per round."""
        sums = zip(
            accumulate(row["uplink_bytes"] for row in rows),
            accumulate(row["uplink_bytes"] + row["downlink_bytes"] for row in rows),
            accumulate(row.get("seconds", 0.0) for row in rows),
            accumulate(row.get(SIMULATED, 0.0) for row in rows),
            strict=True,
        )
        points = [(row, *until) for row, until in zip(rows, sums, strict=True) if "loss" in row]
        evaluated = [row for row, *_ in points]
        shown = [metric for metric in ("accuracy", "loss") if evaluated and all(metric in row for row in evaluated)]
        return Curve(
            name,
            [row["round"] for row in evaluated],
            [point[1] for point in points],
            [point[2] for point in points],
            {metric: [number(row[metric]) for row in evaluated] for metric in shown},
            [point[3] for point in points],
            [point[4] for point in points] if rows and all(SIMULATED in row for row in rows) else [],
        )

    def end(self, metric: str) -> int | None:
        """Place of the last finite value."""
        values = self.metrics.get(metric, ())
        return next((place for place in reversed(range(len(values))) if math.isfinite(values[place])), None)

    def reached(self, metric: str, value: float) -> int | None:
        """Place of the first point that is as good as a value or better."""
        sign = 1 if metric in HIGHER_IS_BETTER else -1
        values = self.metrics.get(metric, ())
        return next((place for place, found in enumerate(values) if sign * found >= sign * value), None)


@dataclass(frozen=True)
class Price:
    """What is paid for a metric, drawn to the right."""

    label: str
    of: Callable[[Curve], Sequence[float]]
    in_bytes: bool = False


ROUNDS = Price("rounds", lambda curve: curve.rounds)
SECONDS = Price("seconds of the rounds", lambda curve: curve.seconds)
SIMULATED_SECONDS = Price("seconds over the simulated links", lambda curve: curve.simulated_seconds)
UPLINK = Price("bytes up, all clients", lambda curve: curve.uplink_bytes, in_bytes=True)
TOTAL = Price("bytes up and down, all clients", lambda curve: curve.total_bytes, in_bytes=True)
PRICES = {"rounds": ROUNDS, "seconds": SECONDS, "uplink": UPLINK, "total": TOTAL}


def prices(names: str, curves: Sequence[Curve]) -> list[Price]:
    """``rounds,seconds,uplink,total`` or some of them; simulated seconds where all curves have them.

    Raises ConfigError for another name.
    """
    simulated = bool(curves) and all(curve.simulated_seconds for curve in curves)
    found = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in PRICES:
            raise ConfigError(f"--x {names}: {name!r} is none of {', '.join(PRICES)}")
        found.append(SIMULATED_SECONDS if name == "seconds" and simulated else PRICES[name])
    if not found:
        raise ConfigError(f"--x names nothing; choose some of {', '.join(PRICES)}")
    return found


def targets(texts: Sequence[str]) -> dict[str, float]:
    """``accuracy=0.95`` and ``loss=0.2`` as metric -> value. Raises ConfigError for anything else."""
    found = {}
    for text in texts:
        metric, _, value = text.partition("=")
        try:
            found[metric.strip()] = float(value)
        except ValueError:
            raise ConfigError(f"--target {text}: write METRIC=VALUE, for example accuracy=0.95") from None
        if metric.strip() not in ("accuracy", "loss") or not math.isfinite(found[metric.strip()]):
            raise ConfigError(f"--target {text}: METRIC is accuracy or loss, VALUE a number; accuracy=0.95 is 95 %")
    return found


def number(value: Any) -> float:
    """A metric as recorded; what was not finite is recorded as null."""
    return float(value) if isinstance(value, (int, float)) else math.nan
