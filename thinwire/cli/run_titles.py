"""The words over and beside a picture of runs."""

import dataclasses
from collections.abc import Sequence

from thinwire.cli.curves import Curve
from thinwire.cli.recorded_run import RecordedRun


def title(runs: Sequence[RecordedRun]) -> str:
    """What all runs have in common."""
    tasks = list(dict.fromkeys(run.part("task") for run in runs))
    parts = [", ".join(filter(None, tasks[:3])) or "runs"]
    clients = {run.options.get("clients") for run in runs}
    seeds = {run.options.get("seed") for run in runs}
    common = [f"{clients.pop()} clients"] if len(clients) == 1 and None not in clients else []
    common += [f"seed {seeds.pop()}"] if len(seeds) == 1 and None not in seeds else []
    return ": ".join([*parts, *([", ".join(common)] if common else [])])


def legends(runs: Sequence[RecordedRun], curves: Sequence[Curve]) -> list[Curve]:
    """The curves with how far each run has come, where it is not over."""
    return [
        curve if run.over else dataclasses.replace(curve, name=f"{curve.name} ({run.progress})")
        for run, curve in zip(runs, curves, strict=True)
    ]
