"""Tables of results for a terminal: one for each figure."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from thinwire.cli.report import amount, times
from thinwire.lab.experiment import Figure
from thinwire.lab.results import Result


@dataclass(frozen=True)
class Row:
    """One entry over all seeds; numbers are medians, an even count's lower one."""

    label: str
    results: tuple[Result, ...]

    def median(self, of: Callable[[Result], float]) -> float:
        """Of one number."""
        return statistics.median_low([of(result) for result in self.results])

    @property
    def reached(self) -> bool:
        """Whether the target was reached with every seed."""
        return all(result.reached for result in self.results)

    @property
    def uplink_bytes(self) -> float:
        """Per client, with framing."""
        return self.median(lambda result: result.uplink_bytes)

    @property
    def total_bytes(self) -> float:
        """Both ways."""
        return self.median(lambda result: result.uplink_bytes + result.downlink_bytes)


def rows_of(figure: Figure, results: Sequence[Result]) -> list[Row]:
    """A row for each entry of the figure that was run."""
    found = []
    for entry in figure.entries:
        own = tuple(r for r in results if (r.case, r.label) == (figure.case, entry.label))
        found += [Row(entry.label, own)] if own else []
    return found


def table_of(figure: Figure, results: Sequence[Result]) -> Table:
    """Step, error, and what it cost to the target, or to the end where the target was not reached."""
    rows = rows_of(figure, results)
    target = rows[0].results[0].target
    seeds = len(rows[0].results)
    cost = f"to {target:g}, or to the end (-)" if target else "to the end"
    over = f"; medians of {seeds} seeds" if seeds > 1 else ""
    table = Table(title=f"{figure.title}; bytes per client {cost}{over}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for column in ("step", "rounds", "error", "up", "(content)", "down", "fewer up", "fewer both ways"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, rows[0], bool(target)))
    return table


def _cells(row: Row, yardstick: Row, raced: bool) -> list[str]:
    """``raced``: runs end at a target, so that their bytes can be compared where they reach it."""
    mark = "" if row.reached or not raced else " -"
    comparable = not raced or (row.reached and yardstick.reached)
    return [
        row.label,
        f"{row.median(lambda r: r.step):.3g} {row.results[0].step_from}",
        f"{row.median(lambda r: r.rounds):.0f}{mark}",
        _error(row.median(lambda r: r.error)),
        amount(row.uplink_bytes),
        amount(row.median(lambda r: r.uplink_content_bytes)),
        amount(row.median(lambda r: r.downlink_bytes)),
        times(yardstick.uplink_bytes, row.uplink_bytes) if comparable else "",
        times(yardstick.total_bytes, row.total_bytes) if comparable else "",
    ]


def _error(value: float) -> str:
    if not math.isfinite(value) or value > 1e6:
        return "diverged"
    return f"{value:.1e}"
