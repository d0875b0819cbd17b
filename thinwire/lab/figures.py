"""Figures of an experiment: the error against rounds, bytes up, and bytes both ways."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thinwire.cli.pictures import DOTS_PER_INCH, STYLE
from thinwire.cli.report import amount
from thinwire.lab.experiment import Figure
from thinwire.lab.results import Result
from thinwire.lab.tables import rows_of

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito; no yellow
LINES = ("-", "--", ":", "-.")  # when the colours are used up
POINTS = 160  # of a curve: smooth at this size, and a small file
LOWEST, HIGHEST = 1e-16, 1e3  # of the error, drawn
WIDE = 12.0  # the ends of curves that lie farther apart than this are drawn on a logarithmic axis

Point = tuple[int, float, float, float]
PRICES: dict[str, Callable[[Point], float]] = {
    "rounds": lambda point: point[0],
    "bytes up, per client": lambda point: point[2],
    "bytes up and down, per client": lambda point: point[2] + point[3],
}


def draw(folder: Path, figure: Figure, error: str, results: Sequence[Result]) -> list[Path]:
    """Write NAME.png and NAME.svg; the files written, none without matplotlib. The same results give the same bytes.

    ``error`` says what is drawn upwards. Opens no window and leaves matplotlib's settings as they were.
    """
    try:
        import matplotlib
    except ImportError:
        return []
    paths = [folder / f"{figure.name}.png", folder / f"{figure.name}.svg"]
    with matplotlib.rc_context(STYLE):
        drawn = _figure(figure, error, results)
        for path in paths:
            unstamped = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            drawn.savefig(path, dpi=DOTS_PER_INCH, metadata=unstamped)
    return paths


def _figure(figure: Figure, error: str, results: Sequence[Result]) -> Any:
    from matplotlib.figure import Figure as Canvas

    canvas: Any = Canvas(figsize=(12.5, 4.2), layout="constrained")
    panels = canvas.subplots(1, len(PRICES), sharey=True)
    rows = rows_of(figure, results)
    curves = [[_visible(list(result.curve.points(POINTS))) for result in row.results] for row in rows]
    for panel, (label, price) in zip(panels, PRICES.items(), strict=True):
        far = _far_apart([price(points[-1]) for seeds in curves for points in seeds])
        for place, (row, seeds) in enumerate(zip(rows, curves, strict=True)):
            style = {"color": COLOURS[place % len(COLOURS)], "linestyle": LINES[place // len(COLOURS) % len(LINES)]}
            for number, points in enumerate(seeds):
                shown = points[1:] if far else points  # a logarithmic axis has no place for round 0
                _plot(panel, shown, price, first=number == 0, label=row.label, zorder=3 - place / 100, **style)
        _axis(panel, label, logarithmic=far)
    panels[0].set_ylabel(error)
    panels[0].set_yscale("log")
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside right center", frameon=False, fontsize=10)
    return canvas


def _plot(panel: Any, points: Sequence[Point], price: Callable[[Point], float], *, first: bool, **style: Any) -> None:
    """One seed; those after the first are thin and unnamed."""
    label = style.pop("label")
    xs, ys = [price(point) for point in points], [point[1] for point in points]
    if not first:
        panel.plot(xs, ys, linewidth=0.7, alpha=0.5, **style)
        return
    panel.plot(xs, ys, label=label, **style)
    panel.plot(xs[-1:], ys[-1:], marker="o", markersize=4, clip_on=False, **style)


def _visible(points: Sequence[Point]) -> list[Point]:
    """Up to where the error leaves the picture; errors below the lowest are drawn there."""
    found: list[Point] = []
    for t, error, up, down in points:
        if not math.isfinite(error) or error > HIGHEST:
            return [*found, (t, HIGHEST, up, down)]
        found.append((t, max(error, LOWEST), up, down))
    return found


def _far_apart(ends: Sequence[float]) -> bool:
    positive = [end for end in ends if end > 0]
    return bool(positive) and max(positive) > WIDE * min(positive)


def _axis(panel: Any, label: str, *, logarithmic: bool) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if logarithmic:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(base=10, numticks=8))
        panel.xaxis.set_minor_formatter(NullFormatter())
    else:
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.xaxis.set_major_formatter((lambda value, _: _short(value)) if "bytes" in label else "{x:g}")
    panel.set_xlabel(label)
    panel.grid(True)
    panel.set_axisbelow(True)
    panel.tick_params(which="both", length=0)


def _short(count: float) -> str:
    """Bytes to three digits."""
    number, unit = amount(count).split()
    return f"{float(number):.3g} {unit}"
