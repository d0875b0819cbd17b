"""A run's totals and ends, for tables and pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinwire.cli.curves import Curve
from thinwire.cli.recorded_run import RecordedRun


@dataclass(frozen=True)
class Summary:
    """What came out and what it took."""

    label: str
    progress: str
    rounds: int
    accuracy: float | None  # of the last evaluation
    best_accuracy: float | None
    loss: float | None
    seconds: float  # of the rounds, evaluation not counted
    simulated_seconds: float | None
    uplink_bytes: int
    downlink_bytes: int
    dense_up_bytes: float  # float32, for the replies that there were
    dense_down_bytes: float  # likewise, for the questions
    asked: int
    replied: int
    diverged: bool  # the last evaluation's loss is not finite

    @staticmethod
    def of(run: RecordedRun, curve: Curve) -> "Summary":
        """Of all rounds that are recorded."""
        total = {key: sum(row.get(key) or 0 for row in run.rows) for key in ("uplink_bytes", "downlink_bytes")}
        losses, accuracies = curve.metrics.get("loss", ()), curve.metrics.get("accuracy", ())
        return Summary(
            label=curve.name,
            progress=run.info.state if run.over else run.progress,
            rounds=run.rounds,
            accuracy=_at(accuracies, curve.end("accuracy")),
            best_accuracy=max((value for value in accuracies if value == value), default=None),
            loss=_at(losses, curve.end("loss")),
            seconds=sum(row.get("seconds") or 0.0 for row in run.rows),
            simulated_seconds=curve.simulated_seconds[-1] if curve.simulated_seconds else None,
            dense_up_bytes=sum(dense(row)[0] for row in run.rows),
            dense_down_bytes=sum(dense(row)[1] for row in run.rows),
            asked=sum(len(row.get("asked") or ()) for row in run.rows),
            replied=sum(len(row.get("replied") or ()) for row in run.rows),
            diverged=bool(losses) and curve.end("loss") != len(losses) - 1,
            **total,
        )


def dense(row: Mapping[str, Any]) -> tuple[float, float]:
    """What a round's replies and its questions would have been in float32, in bytes."""
    asked, replied = len(row.get("asked") or ()), len(row.get("replied") or ())
    message = (row.get("dense_bytes") or 0) / max(1, asked + replied)
    return message * replied, message * asked


def reached(curve: Curve, targets: Mapping[str, float]) -> dict[str, dict[str, float] | None]:
    """What it took to get to each target; None: not reached."""
    found: dict[str, dict[str, float] | None] = {}
    for metric, value in targets.items():
        place = curve.reached(metric, value)
        found[metric] = None if place is None else {
            "round": curve.rounds[place],
            "seconds": round(curve.seconds[place], 3),
            "uplink_bytes": curve.uplink_bytes[place],
            "total_bytes": curve.total_bytes[place],
        }  # fmt: skip
    return found


def _at(values: object, place: int | None) -> float | None:
    return None if place is None else float(values[place])  # type: ignore[index]
