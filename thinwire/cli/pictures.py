"""Pictures of runs: loss and accuracy against rounds, seconds, uplink bytes and all bytes."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from server.run_store import read_rounds
from thinwire.cli.curves import ROUNDS, TOTAL, UPLINK, Curve, Price
from thinwire.cli.words import amount
from thinwire.run_config import RunConfig

PICTURES = ("curves.png", "curves.svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#882255")
"""Okabe and Ito, and Tol's wine: told apart by colour-blind eyes too; by markers and dashes as well."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
DASHES = ("-", "--")  # one round of the colours in four
DOTS_PER_INCH = 144
FULL_SIZE = 11.0  # inches of width with three columns
NARROW = 50.0  # times that an axis of bytes spans, below which powers of ten are too few marks
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
    return draw([folder / name for name in PICTURES], title, curves)


def draw(
    paths: Sequence[Path],
    title: str,
    curves: Sequence[Curve],
    prices: Sequence[Price] = (ROUNDS, UPLINK, TOTAL),
    targets: Mapping[str, float] | None = None,
) -> list[Path]:
    """As ``draw_runs``, from curves, into files whose names say PNG or SVG, with a line at each metric's target.

    Opens no window and leaves matplotlib's settings as they were.
    """
    drawn = [curve for curve in curves if any(curve.end(metric) is not None for metric in curve.metrics)]
    if not drawn:
        return []
    try:
        import matplotlib
    except ImportError:
        return []
    named = [replace(curve, name=_plain(curve.name)) for curve in drawn]
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a folder's name, shown as a box
        figure = _figure(_plain(title), named, prices, targets or {})
        for path in paths:
            unstamped = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata=unstamped)
    return list(paths)


def _figure(title: str, curves: Sequence[Curve], prices: Sequence[Price], targets: Mapping[str, float]) -> Any:
    """A row for each metric, a column for each price that was paid for it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = [name for name in ("accuracy", "loss") if any(curve.end(name) is not None for curve in curves)]
    legend_rows = math.ceil(len(curves) / 2)
    size = max(6.0, FULL_SIZE * len(prices) / 3), 1.3 + 2.6 * len(metrics) + 0.22 * legend_rows * (len(curves) > 2)
    figure: Any = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(metrics), len(prices), sharex="col", sharey="row", squeeze=False)
    for row, metric in zip(panels, metrics, strict=True):
        for panel, price in zip(row, prices, strict=True):
            _plot(panel, curves, metric, price, targets.get(metric))
        _upwards(row[0], metric)
        if metric in targets:
            _write_target(row[-1], metric, targets[metric])
    ends = []
    for column, price in zip(panels.T, prices, strict=True):
        column[-1].set_xlabel(price.label)
        if price.in_bytes:
            _in_bytes(column[-1])
            ends += _write_ends(column[0], curves, metrics[0], price)
        else:
            column[-1].set_xlim(left=0)
    _head(figure, title, panels[0][0])
    _hide_collisions(figure, ends)
    return figure


def _plot(panel: Any, curves: Sequence[Curve], metric: str, price: Price, target: float | None) -> None:
    for place, curve in enumerate(curves):
        values = curve.metrics.get(metric, [])
        xs = price.of(curve) if values else []
        (line,) = panel.plot(xs, values, color=_colour(place), label=curve.name, linestyle=DASHES[place // 4 % 2])
        end = curve.end(metric)
        line.set(marker=MARKERS[place % len(MARKERS)], markevery=[] if end is None else [end], markersize=6)
        line.set(clip_on=False, zorder=3 - place / len(curves))
        reached = None if target is None else curve.reached(metric, target)
        if reached is not None:
            ring = {"marker": "o", "markersize": 8, "markerfacecolor": "white", "markeredgewidth": 1.6}
            panel.plot([xs[reached]], [values[reached]], color=_colour(place), zorder=4, linestyle="none", **ring)
    if target is not None:
        panel.axhline(target, color="#606060", linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    panel.grid(True)
    panel.tick_params(which="both", length=0)
    panel.set_axisbelow(True)


def _upwards(panel: Any, metric: str) -> None:
    """The axis that all panels of a row share."""
    panel.set_ylabel(f"test {metric}")
    if metric == "accuracy":
        panel.set_ylim(0, 1)
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    else:
        panel.set_ylim(bottom=0)


def _write_target(panel: Any, metric: str, target: float) -> None:
    """Its value, at the right of the last panel, where no curve comes."""
    text = f"{100 * target:g} %" if metric == "accuracy" else f"{target:g}"
    where = {"textcoords": "offset points", "va": "center", "xycoords": ("axes fraction", "data")}
    panel.annotate(f"target\n{text}", (1, target), (5, 0), fontsize=9, color="#505050", **where)


def _head(figure: Any, title: str, panel: Any) -> None:
    """The title at the left; the legend at its right if there is room, or else below all panels."""
    heading = figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    handles, names = panel.get_legend_handles_labels()
    renderer = figure.canvas.get_renderer()
    width = figure.bbox.width
    if len(names) <= 3:
        beside = figure.legend(handles, names, loc="outside upper right", ncols=len(names), frameon=False)
        needed = beside.get_window_extent(renderer).width + heading.get_window_extent(renderer).width
        if needed < 0.94 * width:
            return
        beside.remove()
    for columns in range(min(len(names), 4), 0, -1):
        below = figure.legend(handles, names, loc="outside lower left", ncols=columns, frameon=False)
        if columns == 1 or below.get_window_extent(renderer).width < 0.98 * width:
            return
        below.remove()


def _in_bytes(panel: Any) -> None:
    """Powers of ten, named as people name them; of a narrow range, what lies between them too."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    panel.set_xscale("log")
    low, high = panel.get_xlim()
    narrow = high < NARROW * low
    panel.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if narrow else (1,), numticks=12))
    panel.xaxis.set_major_formatter(lambda value, _: _short(value))
    panel.xaxis.set_minor_formatter(NullFormatter())
    if narrow:
        panel.xaxis.set_minor_locator(NullLocator())


def _write_ends(panel: Any, curves: Sequence[Curve], metric: str, price: Price) -> list[Any]:
    """What each run has sent in the end, beside its last point."""
    written = []
    for place, curve in enumerate(curves):
        last = curve.end(metric)
        if last is not None:
            end = price.of(curve)[last], curve.metrics[metric][last]
            style = {"textcoords": "offset points", "ha": "center", "color": _colour(place), "annotation_clip": False}
            written.append(panel.annotate(_short(end[0]), end, (0, 8), **style))
    return written


def _hide_collisions(figure: Any, texts: Sequence[Any]) -> None:
    """Of texts that would lie on each other, the first stays."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    taken: list[Any] = []
    for text in texts:
        box = text.get_window_extent(renderer)
        if any(box.overlaps(other) for other in taken):
            text.set_visible(False)
        else:
            taken.append(box)


def _plain(text: str) -> str:
    """As it is, for matplotlib: no formula between dollars, and no leading _, which keeps it out of a legend."""
    line = text.replace("$", r"\$").replace("\n", " ")
    return f" {line}" if line.startswith("_") else line


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _short(count: float) -> str:
    """Bytes to three digits."""
    number, unit = amount(count).split()
    return f"{float(number):.3g} {unit}"
