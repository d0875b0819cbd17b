"""The run directories of a folder: which there are, how each stands, and what it takes on disk."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.run_store import RunInfo, StoredRun, holds_record, open_run
from thinwire.config import nearest
from thinwire.errors import ConfigError

STATES = ("running", "finished", "stopped", "failed", "killed", "unreadable")
INSIDE = frozenset({"checkpoints", "mirrors", "spool", "clients", "tensorboard"})  # of run directories, never a run


@dataclass(frozen=True)
class Listed:
    """A run directory; ``info`` is None where the record cannot be read, and ``trouble`` says why."""

    name: str  # path below the folder that was looked through
    path: Path
    size_bytes: int
    info: RunInfo | None
    totals: dict[str, Any]
    trouble: str = ""

    @property
    def state(self) -> str:
        """That of its record, or "unreadable"."""
        return "unreadable" if self.info is None else self.info.state

    @property
    def active(self) -> float:
        """When something happened last: seconds since 1970."""
        if self.info is None:
            return self.path.stat().st_mtime
        return max(self.info.started, self.info.ended or 0.0, self.totals["time"] or 0.0)

    def as_json(self) -> dict[str, Any]:
        """The fields of ``thinwire runs list --json``."""
        known: dict[str, Any] = {"name": self.name, "run_dir": str(self.path), "state": self.state}
        known["size_bytes"] = self.size_bytes
        if self.info is None:
            return {**known, "trouble": self.trouble}
        info, totals = self.info, self.totals
        names = ("run", "method", "uplink", "downlink", "task", "seed", "reason", "started", "ended", "processes")
        known |= {name: getattr(info, name) for name in names}
        known |= {"clients": info.config.get("clients"), "planned_rounds": info.config.get("rounds")}
        return known | {name: value for name, value in totals.items() if name != "time"}


def find(root: Path) -> list[Listed]:
    """All runs below a folder, the newest first; raises ConfigError when there is no such folder."""
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; name the folder of the run directories with --root")
    paths = []
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in INSIDE and not name.startswith("."))
        if holds_record(Path(folder)):
            paths.append(Path(folder))
    found = [look(path, str(path.relative_to(root)) if path != root else path.name) for path in paths]
    return sorted(found, key=lambda one: (one.info.started if one.info else 0.0, one.name), reverse=True)


def look(path: Path, name: str) -> Listed:
    """One run directory; a record that cannot be read is no error here."""
    try:
        stored = open_run(path)
        return Listed(name, path, size_bytes(path), stored.info, stored.totals())
    except ConfigError as error:
        return Listed(name, path, size_bytes(path), None, {}, str(error))


def locate(run: str, root: Path) -> StoredRun:
    """A run by its directory, or by its name below ``root``. Raises ConfigError when there is none."""
    for path in (Path(run), root / run):
        if holds_record(path):
            return open_run(path)
    known = [one.name for one in find(root)] if root.is_dir() else []
    raise ConfigError(f"{run!r} is neither a run directory nor the name of a run in {root}{nearest(run, known)}")


def size_bytes(path: Path) -> int:
    """What a folder takes on disk, those inside it too; files that vanish meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
