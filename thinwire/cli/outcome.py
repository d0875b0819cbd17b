"""A finished run: its numbers for scripts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.cli.report import Totals
from thinwire.run_config import RunConfig


@dataclass(frozen=True)
class Outcome:
    """What ``--json`` prints."""

    config: RunConfig
    totals: Totals
    run_dir: Path

    def as_json(self) -> dict[str, Any]:
        """The fixed keys for scripts, and a few more."""
        totals = self.totals
        return {
            "method": self.config.method["name"],
            "uplink": self.config.uplink.get("name", "identity"),
            "downlink": self.config.downlink.get("name", "identity"),
            "rounds": totals.rounds,
            "clients": self.config.clients,
            "accuracy": totals.last.get("accuracy"),
            "loss": totals.last.get("loss"),
            "seconds": round(totals.seconds, 3),
            "uplink_bytes": totals.uplink_bytes,
            "downlink_bytes": totals.downlink_bytes,
            "dense_bytes": totals.dense_bytes,
            "run_dir": str(self.run_dir),
            "seed": self.config.seed,
            "participation": self.config.participation.fraction,
        } | ({} if totals.simulated_seconds is None else {"simulated_seconds": round(totals.simulated_seconds, 3)})
