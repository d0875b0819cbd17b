"""What a person sees of a run: progress while it runs, a table at the end."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from server.totals import Totals
from thinwire.cli import logs
from thinwire.cli.words import amount, duration, times

if TYPE_CHECKING:
    from strategies.coordinator import Decided  # with torch, which would keep the tables of runs waiting


class Watcher(Protocol):
    """Shows the progress of one run."""

    def show(self, decided: "Decided", metrics: Mapping[str, float], totals: Totals) -> None:
        """One more round is done."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Bar:
    """A progress bar, on a terminal."""

    def __init__(self, title: str, rounds: int, done: int = 0) -> None:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(title, total=rounds, completed=done, numbers="")
        self._progress.start()

    def show(self, decided: "Decided", metrics: Mapping[str, float], totals: Totals) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=decided.round, numbers=_numbers(totals))

    def close(self) -> None:
        """Leave the finished bar standing."""
        self._progress.stop()


class Lines:
    """Plain lines on standard error, about ten for a run, for pipes and logs."""

    def __init__(self, title: str, rounds: int) -> None:
        self._title, self._rounds = title, rounds
        self._every = max(1, rounds // 10)

    def show(self, decided: "Decided", metrics: Mapping[str, float], totals: Totals) -> None:
        """A line now and then."""
        if decided.round % self._every == 0 or decided.round == self._rounds:
            sys.stderr.write(f"{self._title}: round {decided.round}/{self._rounds}{_numbers(totals)}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Nothing to clear."""


class Nothing:
    """Where the log tells all."""

    def show(self, decided: "Decided", metrics: Mapping[str, float], totals: Totals) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to clear."""


def watcher(title: str, rounds: int, done: int = 0) -> Watcher:
    """A bar on a terminal, lines elsewhere, nothing where logs are for machines."""
    if logs.as_json():
        return Nothing()  # every round is a line of the log
    return Bar(title, rounds, done) if sys.stderr.isatty() else Lines(title, rounds)


def _numbers(totals: Totals) -> str:
    parts = [f"{name} {totals.last[name]:.4f}" for name in ("loss", "accuracy") if name in totals.last]
    parts += [f"up {amount(totals.uplink_bytes)}", f"down {amount(totals.downlink_bytes)}"]
    return "  " + "  ".join(parts)


def comparison(runs: Mapping[str, tuple[Totals, str]]) -> Table:
    """One column per run, name -> (totals, run directory)."""
    table = Table(title_justify="left")
    table.add_column("")
    for name in runs:
        table.add_column(name, justify="right")
    all_totals = [totals for totals, _ in runs.values()]

    def row(title: str, cells: list[str]) -> None:
        table.add_row(title, *cells)

    row("test accuracy", [f"{100 * t.last['accuracy']:.2f} %" if "accuracy" in t.last else "-" for t in all_totals])
    row("test loss", [f"{t.last['loss']:.4f}" if "loss" in t.last else "-" for t in all_totals])
    row("rounds", [str(t.rounds) for t in all_totals])
    row("seconds", [f"{t.seconds:.1f}" for t in all_totals])
    if any(t.simulated_seconds is not None for t in all_totals):
        row("time on the simulated links", [duration(t.simulated_seconds) for t in all_totals])
    row("up, per client and round", [amount(t.uplink_bytes / max(1, t.asked)) for t in all_totals])
    row("down, per client and round", [amount(t.downlink_bytes / max(1, t.asked)) for t in all_totals])
    row("up, total", [amount(t.uplink_bytes) for t in all_totals])
    row("down, total", [amount(t.downlink_bytes) for t in all_totals])
    row("up, times fewer than dense", [times(t.dense_uplink_bytes, t.uplink_bytes) for t in all_totals])
    row("both ways, times fewer", [times(t.dense_bytes, t.uplink_bytes + t.downlink_bytes) for t in all_totals])
    return table


__all__ = ["Totals", "Watcher", "amount", "comparison", "duration", "times", "watcher"]
