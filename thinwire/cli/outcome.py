"""A finished run: its directory completed, its numbers for scripts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from server.run_directory import MODEL, RunDirectory
from thinwire.cli.report import Totals
from thinwire.errors import ConfigError
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
        }


def save_model(folder: RunDirectory, tensors: Mapping[str, Tensor]) -> Path:
    """The final model as safetensors."""
    path = folder.path / MODEL
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    return path


def new_run_folder(out: Path | None, config: RunConfig) -> Path:
    """The folder of a new run. Raises ConfigError when it holds a run already."""
    if out is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        base = Path("runs") / f"{stamp}-{config.method['name']}"
        out = base
        number = 1
        while out.exists():
            number += 1
            out = base.with_name(f"{base.name}-{number}")
    if (out / "metrics.jsonl").exists() or (out / "checkpoints").exists():
        raise ConfigError(f"{out} holds a run already; choose another --out, or --resume {out} with thinwire server")
    return out


def dtype_of(config: RunConfig) -> torch.dtype:
    """The run's dtype."""
    return torch.float64 if config.dtype == "float64" else torch.float32
