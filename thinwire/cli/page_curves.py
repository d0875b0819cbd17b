"""The curves that a report embeds: few enough points for a small page, with the extremes still in it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from thinwire.cli.curves import SIMULATED, number

MOST_POINTS = 1000  # of the curves of the run that a page is about
MOST_BESIDE = 400  # of those that it is compared with
MOST_STRETCHES = 400  # of the times of rounds
MOST_METRICS = 24  # of one run; clients may name some
DIGITS = 6  # significant


def curves(rows: Sequence[Mapping[str, Any]], most: int = MOST_POINTS) -> dict[str, Any]:
    """Cumulative prices of the rounds that are kept, and metric -> {at: places among them, y: values}.

    What is not finite is None. ``kept`` and ``of`` say how many rounds there are and how many were evaluated.
    """
    kept = thinned(rows, most)
    found: dict[str, Any] = {"of": len(rows), "kept": len(kept), "round": [int(rows[place]["round"]) for place in kept]}
    columns = {
        "uplink": [row["uplink_bytes"] for row in rows],
        "total": [row["uplink_bytes"] + row["downlink_bytes"] for row in rows],
        "seconds": [row.get("seconds") or 0.0 for row in rows],
    }
    if rows and all(SIMULATED in row for row in rows):
        columns["simulated"] = [row[SIMULATED] for row in rows]
    for name, values in columns.items():
        until = np.cumsum(values)
        found[name] = [short(until[place]) for place in kept]
    metrics: dict[str, dict[str, list[Any]]] = {}
    for at, place in enumerate(kept):
        for name, value in metrics_of(rows[place]):
            if name in metrics or len(metrics) < MOST_METRICS:
                points = metrics.setdefault(name, {"at": [], "y": []})
                points["at"].append(at)
                points["y"].append(short(number(value)))
    for points in metrics.values():
        if len(points["at"]) == len(kept):
            del points["at"]  # all of them
    return found | {"metrics": metrics}


def metrics_of(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Metrics of the evaluation, the downlink's compression error, and metrics of training as ``train.NAME``."""
    for name in ("accuracy", "loss", "downlink_error"):
        if name in row:
            yield name, row[name]
    for name, value in (row.get("train") or {}).items():
        yield f"train.{name}", value


def thinned(rows: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Places of the rows to show: of each stretch the lowest and the highest loss, and the last round."""
    if len(rows) <= most:
        return list(range(len(rows)))
    evaluated = [place for place, row in enumerate(rows) if "loss" in row]
    kept = set(np.linspace(0, len(rows) - 1, most // 3).round().astype(int).tolist())
    if len(evaluated) <= most // 2:
        return sorted(kept | set(evaluated))
    losses = np.array([number(rows[place]["loss"]) for place in evaluated])
    for stretch in np.array_split(np.arange(len(evaluated)), most // 3):
        finite = stretch[np.isfinite(losses[stretch])]
        shown = (finite[np.argmin(losses[finite])], finite[np.argmax(losses[finite])]) if len(finite) else stretch[:1]
        kept |= {evaluated[place] for place in shown}
    return sorted(kept)


def round_times(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of the rounds, simulated ones if there are; of many, the middle one and the longest of each stretch."""
    simulated = bool(rows) and all(row.get(SIMULATED) is not None for row in rows)
    key = SIMULATED if simulated else "seconds"
    timed = [row for row in rows if row.get(key) is not None]
    numbers = np.array([int(row["round"]) for row in timed])
    seconds = np.array([float(row[key]) for row in timed])
    if len(timed) <= MOST_STRETCHES:
        return {
            "simulated": simulated,
            "round": numbers.tolist(),
            "seconds": [short(value) for value in seconds],
            "width": 1,
        }
    width = math.ceil(len(timed) / MOST_STRETCHES)
    stretches = [slice(start, start + width) for start in range(0, len(timed), width)]
    return {
        "simulated": simulated,
        "round": [int(numbers[stretch][-1]) for stretch in stretches],
        "seconds": [short(np.median(seconds[stretch])) for stretch in stretches],
        "longest": [short(seconds[stretch].max()) for stretch in stretches],
        "width": width,
    }


def short(value: Any) -> float | int | None:
    """A number in few characters; None where it is not finite."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{float(value):.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
