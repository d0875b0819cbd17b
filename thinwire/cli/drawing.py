"""``thinwire plot`` and ``thinwire report``: pictures and a page of runs that are over, or still going on."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from thinwire.errors import ConfigError

MOST_RUNS = 8  # that one sheet can tell apart
YARDSTICK = "fedavg"  # folder of a simulation's dense yardstick in its run directory

Runs = Annotated[list[Path], typer.Argument(help="Run directories, 1 to 8.", show_default=False, metavar="RUN...")]
Target = Annotated[
    list[str] | None,
    typer.Option(help="A goal to draw, e.g. accuracy=0.95 or loss=0.2: who reaches it when. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object last, and nothing else on standard output.")]


def plot(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option(help="A .png or .svg file, or a folder for both (default: this one).")
    ] = None,
    x: Annotated[str, typer.Option(help="What the columns show.")] = "rounds,seconds,uplink,total",
    target: Target = None,
    json_: Json = False,
) -> None:
    """Draw loss and accuracy of runs on one sheet, against rounds, seconds and bytes."""
    from thinwire.cli.curves import Curve, prices, targets
    from thinwire.cli.pictures import PICTURES, draw
    from thinwire.cli.recorded_run import RecordedRun
    from thinwire.cli.run_labels import labels
    from thinwire.cli.run_summary import reached
    from thinwire.cli.run_titles import legends, title

    _few_enough(runs)
    recorded = [RecordedRun.read(path, events=False) for path in runs]
    goals = targets(target or [])
    names = labels(recorded)
    curves = [Curve.of(name, run.rows) for name, run in zip(names, recorded, strict=True)]
    if not any(curve.metrics for curve in curves):
        raise ConfigError(f"nothing to draw: no round of {', '.join(map(str, runs))} has been evaluated")
    columns = prices(x, curves)
    paths = _files(out, PICTURES)
    try:
        drawn = draw(paths, title(recorded), legends(recorded, curves), columns, goals)
    except OSError as error:
        raise _unwritable(paths[0], error) from None
    if not drawn:
        raise ConfigError("pictures need matplotlib: pip install 'thinwire[simulation]'")
    for curve in curves:
        if not curve.metrics:
            sys.stderr.write(f"not drawn, for it has not been evaluated yet: {curve.name}\n")
    found = [
        {"run_dir": str(run.path), "label": curve.name, "rounds": run.rounds, "state": run.info.state}
        | {"reached": reached(curve, goals)}
        for run, curve in zip(recorded, curves, strict=True)
    ]
    _tell(drawn, {"runs": found}, json_)


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="A run directory; those after it are compared with it.", metavar="RUN...")
    ],
    out: Annotated[Path | None, typer.Option(help="The page (default: report.html in the run directory).")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another run directory to compare with. Repeatable.")
    ] = None,
    target: Target = None,
    json_: Json = False,
) -> None:
    """Write one HTML page about a run, which works offline: curves, bytes, clients, events, configuration.

    A simulation's dense yardstick beside it is compared with it where no other run is named.
    """
    from server.run_store import holds_record
    from thinwire.cli.curves import targets
    from thinwire.cli.recorded_run import RecordedRun
    from thinwire.cli.report_page import page, write

    goals = targets(target or [])
    run, *others = [*runs, *(compare or [])]
    if not others and holds_record(run / YARDSTICK):
        others = [run / YARDSTICK]
    _few_enough([run, *others])
    recorded = [RecordedRun.read(run), *(RecordedRun.read(path, events=False) for path in others)]
    path = out or run / "report.html"
    if path.is_dir():
        path = path / "report.html"
    _make(path.parent)
    try:
        write(path, page(recorded[0], recorded[1:], goals))
    except OSError as error:
        raise _unwritable(path, error) from None
    _tell([path], {"run_dir": str(run), "compared": [str(other) for other in others]}, json_)


def _few_enough(paths: Sequence[Path]) -> None:
    if len(paths) > MOST_RUNS:
        raise ConfigError(f"{len(paths)} runs are too many to tell apart on one sheet; name at most {MOST_RUNS}")


def _files(out: Path | None, names: Sequence[str]) -> list[Path]:
    """Those to be written: one file that is named, or the usual ones in a folder, which is made."""
    if out is not None and out.suffix and not out.is_dir():
        known = sorted({Path(name).suffix for name in names})
        if out.suffix not in known:
            raise ConfigError(f"--out {out}: the name of a file ends in {' or '.join(known)}; or name a folder")
        _make(out.parent)
        return [out]
    folder = out or Path()
    _make(folder)
    return [folder / name for name in names]


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {error.strerror}; choose another place with --out")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}; choose another with --out") from None


def _tell(paths: Sequence[Path], more: dict[str, Any], as_json: bool) -> None:
    files: list[dict[str, Any]] = [{"path": str(path), "bytes": path.stat().st_size} for path in paths]
    if as_json:
        print(json.dumps({"files": files, **more}))
        return
    for file in files:
        line = f"{file['path']}  {file['bytes'] / 1000:.0f} kB"
        Console().print(line, highlight=False, soft_wrap=True, markup=False)
