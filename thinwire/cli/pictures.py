"""Pictures of runs: loss and accuracy against rounds, uplink bytes and all bytes, from their run directories."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from server.run_directory import read_rounds
from thinwire.cli.report import amount
from thinwire.run_config import RunConfig

PICTURES = ("curves.png", "curves.svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by colour-blind eyes too
MARKERS = ("o", "s", "D", "^")
DOTS_PER_INCH = 144
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#808080",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#303030",
    "axes.titlesize": 10.5,
    "text.color": "#303030",
    "xtick.color": "#303030",
    "ytick.color": "#303030",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.hspace": 0.03,
    "svg.hashsalt": "thinwire",  # or the names inside would be drawn at random
}


@dataclass(frozen=True)
class Curve:
    """One run, at the rounds that were evaluated."""

    name: str
    rounds: Sequence[int]
    uplink_bytes: Sequence[int]  # sent until then, all clients together
    total_bytes: Sequence[int]  # both ways
    metrics: Mapping[str, Sequence[float]]  # loss, and accuracy in [0, 1] where the task has one

    @staticmethod
    def of(name: str, rows: Sequence[Mapping[str, Any]]) -> "Curve":
        """From the rows of metrics.jsonl."""
        up = accumulate(row["uplink_bytes"] for row in rows)
        both = accumulate(row["uplink_bytes"] + row["downlink_bytes"] for row in rows)
        points = [point for point in zip(rows, up, both, strict=True) if "loss" in point[0]]
        shown = [name for name in ("accuracy", "loss") if points and all(name in row for row, _, _ in points)]
        return Curve(
            name,
            [row["round"] for row, _, _ in points],
            [count for _, count, _ in points],
            [count for _, _, count in points],
            {metric: [row[metric] for row, _, _ in points] for metric in shown},
        )


PRICES: dict[str, Callable[[Curve], Sequence[int]]] = {
    "rounds": lambda curve: curve.rounds,
    "bytes up, all clients": lambda curve: curve.uplink_bytes,
    "bytes up and down, all clients": lambda curve: curve.total_bytes,
}


def describe(config: RunConfig) -> str:
    """A run in a few words, for a title."""
    asked = config.participation.cohort(config.clients)
    who = f"{config.clients} clients" + (f", {asked} asked per round" if asked < config.clients else "")
    return f"{config.task.get('name', 'task')}: {who}, seed {config.seed}"


def legend(config: RunConfig) -> str:
    """A run's method and compressors."""
    return f"{config.method['name']}: {config.uplink.get('name')} up, {config.downlink.get('name')} down"


def draw_runs(folder: Path, title: str, runs: Mapping[str, Path]) -> list[Path]:
    """Write curves.png and curves.svg of runs, name -> run directory, into a folder; the files written.

    None without matplotlib, or where nothing was evaluated. The same runs give the same bytes.
    """
    curves = [Curve.of(name, read_rounds(path)) for name, path in runs.items()]
    return draw(folder, title, [curve for curve in curves if curve.rounds])


def draw(folder: Path, title: str, curves: Sequence[Curve]) -> list[Path]:
    """As ``draw_runs``, from curves. Opens no window and leaves matplotlib's settings as they were."""
    if not curves:
        return []
    try:
        import matplotlib
    except ImportError:
        return []
    paths = [folder / name for name in PICTURES]
    with matplotlib.rc_context(STYLE):
        figure = _figure(title, curves)
        for path in paths:
            unstamped = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata=unstamped)
    return paths


def _figure(title: str, curves: Sequence[Curve]) -> Any:
    """A row for each metric, a column for each price that was paid for it."""
    from matplotlib.figure import Figure

    metrics = [name for name in ("accuracy", "loss") if all(name in curve.metrics for curve in curves)]
    figure: Any = Figure(figsize=(11.0, 1.3 + 2.6 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), len(PRICES), sharex="col", sharey="row", squeeze=False)
    for row, metric in zip(panels, metrics, strict=True):
        for panel, price in zip(row, PRICES.values(), strict=True):
            _plot(panel, curves, metric, price)
        row[0].set_ylabel(f"test {metric}")
    for column, (label, price) in zip(panels.T, PRICES.items(), strict=True):
        column[-1].set_xlabel(label)
        if "bytes" in label:
            _in_bytes(column[-1])
            _write_ends(column[0], curves, metrics[0], price)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(curves), frameon=False, fontsize=10.5)
    return figure


def _plot(panel: Any, curves: Sequence[Curve], metric: str, price: Callable[[Curve], Sequence[int]]) -> None:
    for place, curve in enumerate(curves):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        (line,) = panel.plot(price(curve), curve.metrics[metric], color=colour, label=curve.name)
        line.set(marker=marker, markevery=[-1], markersize=6, clip_on=False, zorder=3 - place / len(curves))
    panel.grid(True)
    panel.tick_params(which="both", length=0)
    panel.set_axisbelow(True)
    if metric == "accuracy":
        panel.set_ylim(0, 1)
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    else:
        panel.set_ylim(bottom=0)


def _in_bytes(panel: Any) -> None:
    """Powers of ten, named as people name them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    panel.xaxis.set_major_formatter(lambda value, _: _short(value))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _write_ends(panel: Any, curves: Sequence[Curve], metric: str, price: Callable[[Curve], Sequence[int]]) -> None:
    """What each run has sent in the end, beside its last point."""
    for place, curve in enumerate(curves):
        end = price(curve)[-1], curve.metrics[metric][-1]
        colour = COLOURS[place % len(COLOURS)]
        panel.annotate(_short(end[0]), end, (0, 8), textcoords="offset points", ha="center", color=colour)


def _short(count: float) -> str:
    """Bytes to three digits."""
    number, unit = amount(count).split()
    return f"{float(number):.3g} {unit}"
