"""What the experiments share: named configurations, run with several seeds by the code behind ``thinwire simulate``."""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from thinwire.cli.outcome import Outcome
from thinwire.cli.simulation import dense_fedavg, simulate
from thinwire.run_config import RunConfig

DENSE = "FedAvg, dense"
TOP_K: Mapping[str, Any] = {"name": "top-k", "fraction": 0.01, "values": "bf16"}
RAND_K: Mapping[str, Any] = {"name": "rand-k", "fraction": 0.1, "values": "bf16"}
IDENTITY: Mapping[str, Any] = {"name": "identity"}


def compared(base: RunConfig) -> dict[str, RunConfig]:
    """Dense FedAvg, and the methods that stand beside it, all else equal."""

    def with_method(name: str, uplink: Mapping[str, Any], downlink: Mapping[str, Any] = IDENTITY) -> RunConfig:
        return replace(base, method={"name": name}, uplink=dict(uplink), downlink=dict(downlink))

    return {
        DENSE: dense_fedavg(base),
        "EF21, top-k 1 % up": with_method("ef21", TOP_K),
        "EF21, top-k 1 % up and down": with_method("ef21", TOP_K, TOP_K),
        "EF14, top-k 1 % up": with_method("ef14", TOP_K),
        "FedAvg, natural up": with_method("fedavg", {"name": "natural"}),
        "FedAvg, rand-k 10 % up": with_method("fedavg", RAND_K),
    }


@dataclass(frozen=True)
class Row:
    """One configuration over all seeds; bytes are means over the seeds, as packed and sent."""

    name: str
    participation: float
    rounds: int
    accuracy: tuple[float, ...]  # of each seed, in [0, 1], after the last round
    uplink_bytes: float  # per client that was asked and round
    downlink_bytes: float
    times_fewer_up: float  # than float32 for the same participation
    times_fewer_both: float
    seconds: float  # of a run

    @staticmethod
    def of(name: str, outcomes: Sequence[Outcome]) -> "Row":
        """From one outcome per seed."""
        totals = [outcome.totals for outcome in outcomes]
        asked = sum(t.asked for t in totals)
        up, down, dense = (sum(getattr(t, f"{k}_bytes") for t in totals) for k in ("uplink", "downlink", "dense"))
        return Row(
            name,
            outcomes[0].config.participation.fraction,
            totals[0].rounds,
            tuple(t.last["accuracy"] for t in totals),
            up / asked,
            down / asked,
            dense / 2 / up,
            dense / (up + down),
            statistics.mean(t.seconds for t in totals),
        )

    @property
    def points(self) -> float:
        """Mean accuracy in per cent."""
        return 100 * statistics.mean(self.accuracy)


def run(cases: Mapping[str, RunConfig], seeds: Sequence[int], out: Path) -> Iterator[Row]:
    """Run every configuration with every seed, each in a run directory of its own."""
    for number, (name, config) in enumerate(cases.items()):
        yield Row.of(
            name,
            [
                simulate(replace(config, seed=seed), out / f"{number}-seed-{seed}", f"{name}, seed {seed}")
                for seed in seeds
            ],
        )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| method | test accuracy, mean (min-max) | up, kB | down, kB | fewer up | fewer both ways |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{100 * min(row.accuracy):.1f}-{100 * max(row.accuracy):.1f}"
        sent = f"{row.uplink_bytes / 1000:.2f} | {row.downlink_bytes / 1000:.2f}"
        fewer = f"{row.times_fewer_up:.1f} x | {row.times_fewer_both:.1f} x"
        lines.append(f"| {row.name} | {row.points:.1f} % ({spread}) | {sent} | {fewer} |")
    return "\n".join([*lines, "", "up, down: bytes per client and round, as sent; fewer: than float32"])


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options of every experiment."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    found.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    found.add_argument("--rounds", type=int, default=200)
    found.add_argument("--json", action="store_true", help="one JSON list, last on standard output")
    found.add_argument("--out", type=Path, help="keep the run directories here")
    return found


@contextmanager
def folder(out: Path | None) -> Iterator[Path]:
    """Where run directories go."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="thinwire-") as passing:
        yield Path(passing)


def as_json(rows: Sequence[Row]) -> str:
    """One object per row."""
    return json.dumps([asdict(row) for row in rows])
