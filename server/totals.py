"""What a run has come to: sums over the rows of its rounds, earlier processes' included."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.coordinator import Decided  # with torch, which would keep the tables of runs waiting

OWN = frozenset({
    "round", "attempt", "seconds", "simulated_seconds", "uplink_bytes", "downlink_bytes", "dense_bytes", "asked",
    "replied", "client_bytes", "client_seconds", "train", "downlink_error", "time", "sequence",
})  # fmt: skip
"""Fields of a row that the server itself counted; any other is a metric of an evaluation."""


@dataclass
class Totals:
    """Sums over a run."""

    rounds: int = 0  # the highest that is done
    seconds: float = 0.0  # that its rounds took; evaluations and pauses are not counted
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    dense_bytes: int = 0
    dense_uplink_bytes: float = 0.0  # the part of the answers that came
    asked: int = 0
    simulated_seconds: float | None = None  # of the simulated clock, where there is one
    last: dict[str, float] = field(default_factory=dict)  # metrics of the last evaluation, as far as they are finite

    def add(self, decided: "Decided", metrics: Mapping[str, float]) -> None:
        """One more round, as it was decided."""
        self.add_row({**metrics, **vars(decided)})

    def add_row(self, row: Mapping[str, Any]) -> None:
        """One more round, as it is recorded."""
        self.rounds = max(self.rounds, row["round"])
        self.seconds += row["seconds"]
        self.uplink_bytes += row["uplink_bytes"]
        self.downlink_bytes += row["downlink_bytes"]
        self.dense_bytes += row["dense_bytes"]
        asked, replied = len(row["asked"]), len(row["replied"])
        # dense messages are as many as questions and answers; who did not answer has saved nothing
        self.dense_uplink_bytes += row["dense_bytes"] * replied / max(1, asked + replied)
        self.asked += asked
        if row.get("simulated_seconds") is not None:
            self.simulated_seconds = (self.simulated_seconds or 0.0) + row["simulated_seconds"]
        self.last = {name: float(row[name]) for name in row.keys() - OWN if _is_finite(row[name])} or self.last


def _is_finite(value: Any) -> bool:
    """Whether a value of a row is a number to be shown."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["OWN", "Totals"]
