"""An experiment from start to end: run it, and leave tables, figures and files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from thinwire.errors import ConfigError
from thinwire.lab.experiment import Experiment, Figure, Settings
from thinwire.lab.figures import draw
from thinwire.lab.results import SUMMARY, Result, write_csv
from thinwire.lab.runner import Plan, processes_for, run_jobs
from thinwire.lab.tables import rows_of


@dataclass(frozen=True)
class Report:
    """What an experiment found, and where it lies."""

    folder: Path
    results: tuple[Result, ...]
    figures: tuple[Figure, ...]  # those of which something was run
    pictures: tuple[Path, ...]  # empty without matplotlib


def perform(experiment: Experiment, settings: Settings, plan: Plan, out: Path | None) -> Report:
    """Run an experiment and write its files: summary.csv, curves.csv, and a PNG and an SVG for each figure.

    Raises ConfigError before anything is run where the request makes no sense.
    """
    if settings.data is not None and not experiment.takes_data:
        raise ConfigError(f"the experiment {experiment.name} makes its own data and takes no --data")
    jobs = plan.jobs(experiment, settings)
    folder = new_folder(out, experiment.name)
    results = run_jobs(jobs, processes_for(plan, settings, len(jobs)), experiment.name)
    write_csv(folder, results)
    figures = tuple(figure for figure in experiment.figures(settings) if rows_of(figure, results))
    pictures = _draw(experiment, settings, folder, figures, results)
    if experiment.also is not None and not plan.only:
        pictures += [path for path in experiment.also(settings, plan.seeds, folder) if path.suffix != ".csv"]
    return Report(folder, tuple(results), figures, tuple(pictures))


def new_folder(out: Path | None, name: str) -> Path:
    """The folder of a report, made; by default ``runs/lab/NAME-DATE``. Raises ConfigError when it holds one already."""
    folder = Path("runs") / "lab" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}" if out is None else out
    if (folder / SUMMARY).exists():
        raise ConfigError(f"{folder} holds results already; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}") from None
    return folder


def _draw(
    experiment: Experiment, settings: Settings, folder: Path, figures: Sequence[Figure], results: Sequence[Result]
) -> list[Path]:
    cases = experiment.cases(settings)
    return [path for figure in figures for path in draw(folder, figure, cases[figure.case].error, results)]
