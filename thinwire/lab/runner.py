"""The jobs of an experiment, one after the other or over processes, with progress on standard error."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from thinwire.cli.report import amount
from thinwire.device import set_threads
from thinwire.errors import ConfigError
from thinwire.lab.experiment import Experiment, Settings
from thinwire.lab.jobs import Job, entries
from thinwire.lab.results import Result


@dataclass(frozen=True)
class Plan:
    """Which jobs of an experiment, and on how many processes."""

    seeds: int = 1
    only: tuple[str, ...] = ()  # entries whose label contains one of these, ignoring case; empty: all
    most_rounds: int = 0  # 0: as many as each case allows
    processes: int = 0  # 0: one per core when that pays

    def jobs(self, experiment: Experiment, settings: Settings) -> list[Job]:
        """In the order of the figures, seed by seed. Raises ConfigError where there are none."""
        if self.seeds < 1:
            raise ConfigError(f"--seeds {self.seeds}: at least 1")
        labels = [key for key in entries(experiment.name, settings) if self.takes(key[1])]
        if not labels:
            known = ", ".join(sorted({label for _, label in entries(experiment.name, settings)}))
            raise ConfigError(f"no entry of {experiment.name} is called {' or '.join(self.only)}; there are {known}")
        return [
            Job(experiment.name, settings, case, label, seed, self.most_rounds)
            for seed in range(self.seeds)
            for case, label in labels
        ]

    def takes(self, label: str) -> bool:
        """Whether an entry of that label is to be run."""
        return not self.only or any(text.lower() in label.lower() for text in self.only)


def run_jobs(jobs: Sequence[Job], processes: int, title: str) -> list[Result]:
    """All results, in the order of the jobs; the same whatever the number of processes."""
    progress = _progress(title, len(jobs))
    try:
        if processes <= 1:
            with _one_thread():
                return [progress.shown(job()) for job in jobs]
        with _pool(processes) as pool:
            futures = {pool.submit(job): place for place, job in enumerate(jobs)}
            found = {futures[future]: progress.shown(future.result()) for future in as_completed(futures)}
            return [found[place] for place in range(len(jobs))]
    finally:
        progress.close()


def processes_for(plan: Plan, settings: Settings, jobs: int) -> int:
    """One per core, but a single one for a quick run, where starting them would take longer than it saves."""
    wanted = plan.processes or (1 if settings.quick else len(os.sched_getaffinity(0)))
    return min(wanted, jobs)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned, for a fork would copy torch's threads; what has not begun is dropped when one job fails."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=set_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in the processes of a pool, so that the bits are the same."""
    before = torch.get_num_threads()
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)


class _Shows(Protocol):
    def shown(self, result: Result) -> Result: ...
    def close(self) -> None: ...


class _Bar:
    """On a terminal."""

    def __init__(self, title: str, jobs: int) -> None:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn())
        last = TextColumn("{task.fields[last]}"), TimeElapsedColumn()
        self._progress = Progress(*columns, *last, console=Console(stderr=True))
        self._task = self._progress.add_task(title, total=jobs, last="")
        self._progress.start()

    def shown(self, result: Result) -> Result:
        """Move the bar."""
        self._progress.update(self._task, advance=1, last=_line(result))
        return result

    def close(self) -> None:
        """Leave it standing."""
        self._progress.stop()


class _Lines:
    """In a pipe: a line for each job."""

    def __init__(self, title: str, jobs: int) -> None:
        self._title, self._jobs, self._done = title, jobs, 0

    def shown(self, result: Result) -> Result:
        """One more line."""
        self._done += 1
        sys.stderr.write(f"{self._title}: {self._done}/{self._jobs} {_line(result)}\n")
        sys.stderr.flush()
        return result

    def close(self) -> None:
        """Nothing to clear."""


def _progress(title: str, jobs: int) -> _Shows:
    return _Bar(title, jobs) if sys.stderr.isatty() else _Lines(title, jobs)


def _line(result: Result) -> str:
    up = amount(result.uplink_bytes)
    return f"{result.label}, seed {result.seed}: {result.error:.1e} after {result.rounds} rounds, {up} up"
