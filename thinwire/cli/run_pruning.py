"""Which runs may go, and their going: only files that Thinwire wrote, never of a run that somebody holds."""

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server import run_lock
from server.run_store import holds_record
from server.run_store_schema import NAME, OLD_EVENTS, OLD_METRICS
from server.run_store_writer import forget_events
from thinwire.cli.run_folders import INSIDE, Listed, size_bytes
from thinwire.errors import ConfigError

STATES = ("finished", "stopped", "failed", "killed")  # that may be pruned
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
OURS = frozenset({"run.toml", "run.toml.new", "model.safetensors", "model.new", "journal.bin", "control.json"})
OURS |= {"curves.png", "curves.svg", "report.html", OLD_METRICS, OLD_EVENTS}
LAST = (f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-journal", NAME, run_lock.NAME)  # what makes it a run goes at the end


@dataclass(frozen=True)
class Rule:
    """Which runs go: those in one of the states, older than an age, and not among the newest."""

    keep: int | None = None  # so many of the newest of the states stay
    older_seconds: float | None = None  # nothing has happened for longer
    states: tuple[str, ...] = ()  # all but running, when empty

    def __post_init__(self) -> None:
        unknown = [state for state in self.states if state not in STATES]
        if unknown:
            raise ConfigError(f"--state {unknown[0]} cannot be pruned; choose among {', '.join(STATES)}")
        if self.keep is not None and self.keep < 0:
            raise ConfigError(f"--keep {self.keep} is below 0")

    def choose(self, runs: Sequence[Listed], now: float) -> list[Listed]:
        """Those that go, of runs with the newest first. One inside another's directory goes and stays with that."""
        outer = [run for run in runs if not any(other.path in run.path.parents for other in runs)]
        states = self.states or STATES
        busy = [run.path for run in runs if run.state == "running"]
        still = [run for run in outer if not any(run.path in path.parents for path in busy)]
        found = [run for run in still if run.state in states][self.keep or 0 :]
        return [run for run in found if self.older_seconds is None or now - run.active > self.older_seconds]


@dataclass
class Removed:
    """What became of one run directory."""

    run: Listed
    freed_bytes: int = 0
    kept: list[str] = field(default_factory=list)  # files that are not ours
    trouble: str = ""


def age(text: str) -> float:
    """``90m``, ``12h``, ``30d`` or ``2w`` in seconds. Raises ConfigError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise ConfigError(f"--older-than {text}: write a number and s, m, h, d or w, for example 30d")
    return float(found[1]) * SECONDS[found[2]]


def remove(run: Listed) -> Removed:
    """Delete a run directory while holding its lock; files of other programs stay, and with them the folder."""
    removed = Removed(run)
    before = run.size_bytes
    try:
        with run_lock.take(run.path):
            _remove(run.path, removed.kept, run.path)
    except (OSError, ConfigError) as error:
        removed.trouble = str(error)
    removed.freed_bytes = before - (size_bytes(run.path) if run.path.exists() else 0)
    return removed


def forget(run: Listed, keep: int) -> int:
    """Leave the newest events of a run only; how many went. Raises ConfigError when somebody holds it."""
    try:
        with run_lock.take(run.path):
            return forget_events(run.path, keep) if (run.path / NAME).exists() else 0
    except OSError as error:
        raise ConfigError(f"cannot write to {run.path}: {error.strerror}") from None


def prunable(runs: Sequence[Listed], rule: Rule) -> list[Listed]:
    """Those that the rule lets go now."""
    return rule.choose(runs, time.time())


def _remove(folder: Path, kept: list[str], root: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            kept.append(str(path.relative_to(root)))
        elif path.is_dir() and path.name in INSIDE:
            shutil.rmtree(path)
        elif path.is_dir() and holds_record(path):
            with run_lock.take(path):
                _remove(path, kept, root)
        elif path.name in OURS:
            path.unlink()
        elif path.name not in LAST:
            kept.append(str(path.relative_to(root)) + ("/" if path.is_dir() else ""))
    for name in LAST:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
