"""What a run of the laboratory found: its curve, and its numbers for tables and scripts."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from strategies.trace import Trace
from thinwire.lab.experiment import Case, Entry, describe

SUMMARY, CURVES = "summary.csv", "curves.csv"
MOST_POINTS = 500  # of a curve in a file or picture


@dataclass(frozen=True)
class Result:
    """One entry on one problem. Bytes are per client, as packed and sent, to the target or to the end."""

    case: str
    label: str
    method: str
    compressor: str  # of the uplink, by name
    uplink: str  # the same with its options
    downlink: str
    participation: float
    seed: int
    step: float
    step_from: str  # theory, tuned or fixed
    theory_step: float | None  # None where theory gives none
    promise: str | None  # what theory promises at its own step
    target: float
    reached: bool
    rounds: int
    error: float
    uplink_bytes: float
    downlink_bytes: float
    uplink_content_bytes: float  # without the packets' framing: what a formula of bits counts
    downlink_content_bytes: float
    curve: "Curve"

    @staticmethod
    def of(
        entry: Entry,
        case: tuple[str, Case],
        seed: int,
        step: float,
        theory: tuple[float | None, str | None],
        trace: Trace,
    ) -> "Result":
        """From the trace of its run, which ends at the target."""
        curve = Curve.of(trace)
        content = trace.contents[-1] if trace.contents else (0, 0)
        return Result(
            case[0],
            entry.label,
            str(entry.method["name"]),
            str(entry.uplink["name"]),
            describe(entry.uplink),
            describe(entry.downlink),
            entry.participation,
            seed,
            step,
            str(entry.step).split()[0],
            *theory,
            case[1].target,
            trace.rounds_to(case[1].target) is not None,
            len(trace.uplink_bytes),
            trace.errors[-1],
            curve.uplink_bytes[-1],
            curve.downlink_bytes[-1],
            content[0] / trace.clients,
            content[1] / trace.clients,
            curve,
        )

    def as_json(self) -> dict[str, Any]:
        """All but the curve; null for an error that left all bounds."""
        fields = {name: value for name, value in vars(self).items() if name != "curve"}
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in fields.items()}


@dataclass(frozen=True)
class Curve:
    """Error and bytes per client until then, after each round from 0."""

    errors: tuple[float, ...]
    uplink_bytes: tuple[float, ...]
    downlink_bytes: tuple[float, ...]

    @staticmethod
    def of(trace: Trace) -> "Curve":
        """Per client, from the sums over all."""
        up = (count / trace.clients for count in accumulate(trace.uplink_bytes, initial=0))
        down = (count / trace.clients for count in accumulate(trace.downlink_bytes, initial=0))
        return Curve(trace.errors, tuple(up), tuple(down))

    def points(self, most: int = MOST_POINTS) -> Iterator[tuple[int, float, float, float]]:
        """(round, error, bytes up, bytes down) at ``most`` rounds or fewer, the first and the last among them.

        Half of them evenly spaced, half by a constant factor, for linear and logarithmic axes.
        """
        last, half = len(self.errors) - 1, most // 2
        evenly = {place * last // (half - 1) for place in range(half)}
        by_factor = {round(last ** (place / (half - 1))) for place in range(half)} if last else set()
        for t in range(last + 1) if last < most else sorted(evenly | by_factor):
            yield t, self.errors[t], self.uplink_bytes[t], self.downlink_bytes[t]


def write_csv(folder: Path, results: Sequence[Result]) -> list[Path]:
    """The summary, a row for each result, and the curves, at most 500 points each; the files written."""
    summary, curves = folder / SUMMARY, folder / CURVES
    _write(summary, [result.as_json() for result in results])
    columns = ("round", "error", "uplink_bytes", "downlink_bytes")
    _write(
        curves,
        [
            {"case": r.case, "label": r.label, "seed": r.seed} | dict(zip(columns, point, strict=True))
            for r in results
            for point in r.curve.points()
        ],
    )
    return [summary, curves]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
