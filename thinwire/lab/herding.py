"""The herding bound of every order on fixed random vectors: against examples, clients, and passes."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strategies.ordering_problems import KINDS, bounds, random_vectors
from thinwire.cli.pictures import DOTS_PER_INCH, STYLE
from thinwire.lab.figures import COLOURS

PASSES = 10
CLIENTS = 8
LABELS: Mapping[str, str] = {
    "random": "random reshuffling",
    "grab": "GraB, each client on its own",
    "id-grab": "ID-GraB",
    "cd-grab": "CD-GraB",
    "hybrid": "hybrid",
}


@dataclass(frozen=True)
class Bound:
    """One order on the vectors of one seed."""

    order: str
    units: int  # of each client
    clients: int
    participation: float
    seed: int
    bounds: tuple[float, ...]  # before the first pass, and after each

    @property
    def last(self) -> float:
        """After the last pass; the mean of the last three, for absent clients make it jump."""
        return sum(self.bounds[-3:]) / 3


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    units: Sequence[int] = (64, 256, 1024, 4096)
    clients: Sequence[int] = (4, 8, 16, 32, 64)
    units_of_clients: int = 512  # while the clients vary
    passes: int = PASSES


def measure(sizes: Sizes, seeds: int) -> Iterator[Bound]:
    """Every order; at half participation too, with thrice the passes."""
    for seed in range(seeds):
        for kind in KINDS:
            for units in sizes.units:
                yield _bound(kind, units, CLIENTS, 1.0, seed, sizes.passes)
            for clients in sizes.clients:
                if clients != CLIENTS or sizes.units_of_clients not in sizes.units:
                    yield _bound(kind, sizes.units_of_clients, clients, 1.0, seed, sizes.passes)
            yield _bound(kind, sizes.units_of_clients, CLIENTS, 0.5, seed, 3 * sizes.passes)


def _bound(kind: str, units: int, clients: int, participation: float, seed: int, passes: int) -> Bound:
    found = bounds(random_vectors(clients, units, seed=seed), kind, passes, participation, seed)
    return Bound(kind, units, clients, participation, seed, tuple(found))


def write(folder: Path, found: Sequence[Bound]) -> list[Path]:
    """herding.csv, and herding.png and .svg where matplotlib is installed."""
    path = folder / "herding.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        names = ["order", "units", "clients", "participation", "seed", "pass", "bound"]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for one in found:
            fields = {name: value for name, value in asdict(one).items() if name != "bounds"}
            writer.writerows({**fields, "pass": number, "bound": value} for number, value in enumerate(one.bounds))
    return [path, *_draw(folder, found)]


def _draw(folder: Path, found: Sequence[Bound]) -> list[Path]:
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return []
    paths = [folder / "herding.png", folder / "herding.svg"]
    with matplotlib.rc_context(STYLE):
        canvas: Any = Canvas(figsize=(12.5, 4.2), layout="constrained")
        panels = canvas.subplots(1, 3)
        whole = [one for one in found if one.participation == 1]
        units = max(one.units for one in whole)
        others = {one.units for one in whole if one.clients != CLIENTS}
        _panel(
            panels[0],
            [one for one in whole if one.clients == CLIENTS],
            "units",
            f"examples of each of {CLIENTS} clients",
        )
        _panel(panels[1], [one for one in whole if one.units in others], "clients", "clients")
        for place, kind in enumerate(KINDS):
            for one in whole:
                if (one.order, one.units, one.clients, one.seed) == (kind, units, CLIENTS, 0):
                    panels[2].plot(range(len(one.bounds)), one.bounds, color=COLOURS[place])
        panels[2].set(xlabel=f"passes, {units} examples", yscale="log")
        panels[0].set(ylabel="herding bound (largest entry of a partial sum)")
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS))
        for path in paths:
            unstamped = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            canvas.savefig(path, dpi=DOTS_PER_INCH, metadata=unstamped)
    return paths


def _panel(panel: Any, found: Sequence[Bound], price: str, label: str) -> None:
    """The last bound against units or clients, the mean over seeds."""
    for place, kind in enumerate(KINDS):
        points: dict[int, list[float]] = {}
        for one in found:
            if one.order == kind:
                points.setdefault(getattr(one, price), []).append(one.last)
        means = [(at, sum(values) / len(values)) for at, values in sorted(points.items())]
        if means:
            panel.plot(*zip(*means, strict=True), color=COLOURS[place], marker="o", markersize=3, label=LABELS[kind])
    panel.set(xlabel=label, xscale="log", yscale="log")
