"""What a run directory says of its run, read for pictures and reports; the run may go on meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.run_store import RunInfo, open_run


@dataclass(frozen=True)
class RecordedRun:
    """State, rounds and events of one run, as far as they are written."""

    path: Path
    info: RunInfo
    rows: Sequence[Mapping[str, Any]]  # one per round, in order
    events: Sequence[Mapping[str, Any]]

    @staticmethod
    def read(path: Path, *, events: bool = True) -> "RecordedRun":
        """Raises ConfigError where there is no run."""
        stored = open_run(path)
        return RecordedRun(path, stored.info, stored.rounds(), stored.events() if events else [])

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.path.resolve().name

    @property
    def options(self) -> Mapping[str, Any]:
        """The configuration, nested."""
        return self.info.config

    @property
    def over(self) -> bool:
        """Whether it got to its end; a record of an older version does not say how the run stands."""
        return self.info.state == "finished" and self.rounds >= self.planned_rounds

    @property
    def rounds(self) -> int:
        """Rounds that are done."""
        return int(self.rows[-1]["round"]) if self.rows else 0

    @property
    def planned_rounds(self) -> int:
        """Rounds that there shall be; 0 where no configuration says so."""
        return int(self.options.get("rounds", 0))

    @property
    def progress(self) -> str:
        """How it stands and how far it has come."""
        state = "" if self.info.state == "finished" else f"{self.info.state}, "
        return f"{state}round {self.rounds}" + (f" of {self.planned_rounds}" if self.planned_rounds else "")

    def part(self, section: str) -> str:
        """The name that a section of the configuration has: the method, the uplink's compressor, the task."""
        named = self.options.get(section)
        return str(named.get("name", "")) if isinstance(named, Mapping) else str(named or "")
