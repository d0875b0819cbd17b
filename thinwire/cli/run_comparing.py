"""Runs side by side: where each ended, and what it paid for the goal that all of them reached."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinwire.cli.curves import HIGHER_IS_BETTER, Curve
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.run_labels import differences, flat, labels
from thinwire.cli.run_summary import Summary, reached


@dataclass(frozen=True)
class Comparison:
    """All that ``thinwire runs compare`` shows."""

    paths: Sequence[Path]
    summaries: Sequence[Summary]
    states: Sequence[str]
    dense_bytes: Sequence[int]  # float32 both ways, for the same participation
    goals: dict[str, float]  # metric -> value
    costs: Sequence[dict[str, dict[str, float] | None]]  # per run: metric -> what it took; None: not reached
    configurations: Sequence[dict[str, Any]]  # dotted key -> value
    differing: Sequence[str]  # keys on which they do not agree

    @staticmethod
    def of(paths: Sequence[Path], goals: dict[str, float]) -> "Comparison":
        """Without goals, the best that all of them have reached. Raises ConfigError where there is no run."""
        runs = [RecordedRun.read(path, events=False) for path in paths]
        curves = [Curve.of(name, run.rows) for name, run in zip(labels(runs), runs, strict=True)]
        goals = goals or common_goal(curves)
        configurations = [flat(run.options) for run in runs]
        return Comparison(
            paths,
            [Summary.of(run, curve) for run, curve in zip(runs, curves, strict=True)],
            [run.info.state for run in runs],
            [sum(row.get("dense_bytes") or 0 for row in run.rows) for run in runs],
            goals,
            [_costs(curve, goals) for curve in curves],
            configurations,
            differences(configurations),
        )

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        runs = [
            {
                "run_dir": str(path),
                "state": state,
                **asdict(summary),
                "dense_bytes": dense_bytes,
                "reached": costs,
                "config": {key: options.get(key) for key in self.differing},
            }
            for path, state, summary, dense_bytes, costs, options in zip(
                self.paths,
                self.states,
                self.summaries,
                self.dense_bytes,
                self.costs,
                self.configurations,
                strict=True,
            )
        ]
        return {"goals": self.goals, "differing": list(self.differing), "runs": runs}


def common_goal(curves: Sequence[Curve]) -> dict[str, float]:
    """The best accuracy, or else loss, that every run has reached; none where no metric is common to all."""
    for metric in ("accuracy", "loss"):
        found = [[value for value in curve.metrics.get(metric, ()) if value == value] for curve in curves]
        if all(found):
            higher = metric in HIGHER_IS_BETTER
            return {metric: min(map(max, found)) if higher else max(map(min, found))}
    return {}


def _costs(curve: Curve, goals: dict[str, float]) -> dict[str, dict[str, float] | None]:
    costs = reached(curve, goals)
    for metric, cost in costs.items():
        place = curve.reached(metric, goals[metric])
        if cost is not None and place is not None and curve.simulated_seconds:
            cost["simulated_seconds"] = round(curve.simulated_seconds[place], 3)
    return costs
