"""TensorBoard event files: a run's rounds as scalars in its run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.totals import OWN
from thinwire.config import to_toml
from thinwire.errors import ConfigError

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raises ConfigError where the package that writes event files is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ConfigError("--tensorboard needs the package tensorboard: pip install 'thinwire[tensorboard]'") from None


class EventFiles:
    """An observer that writes to ``tensorboard/`` of a run directory, one file for each server process.

    Steps are round numbers. ``evaluation/*`` are the model's metrics, ``train/*`` the clients', averaged.
    """

    def __init__(self, run_dir: Path, options: Mapping[str, Any], first_round: int = 1) -> None:
        """``first_round``: what an earlier process wrote of it and later ones is taken back."""
        from torch.utils.tensorboard import SummaryWriter

        purge = first_round if first_round > 1 else None
        self._writer = SummaryWriter(str(run_dir / FOLDER), purge_step=purge)
        listing = "".join(f"    {line}\n" for line in to_toml(options).splitlines())  # code, in Markdown
        self._writer.add_text("run.toml", listing, 0)

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """A row as scalars; events are not for curves."""
        if kind != "round":
            return
        for name, value in scalars(fields).items():
            self._writer.add_scalar(name, value, fields["round"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """What a round's row says in numbers, by the names that they have in TensorBoard and in hooks."""
    both = row["uplink_bytes"] + row["downlink_bytes"]
    found: dict[str, float] = {
        "round/seconds": row["seconds"],
        "round/asked": len(row["asked"]),
        "round/replied": len(row["replied"]),
        "bytes/uplink": row["uplink_bytes"],
        "bytes/downlink": row["downlink_bytes"],
        "bytes/dense": row["dense_bytes"],
    }
    if both:
        found["bytes/ratio"] = row["dense_bytes"] / both
    if "simulated_seconds" in row:
        found["round/simulated_seconds"] = row["simulated_seconds"]
    if "downlink_error" in row:
        found["compression_error/downlink"] = row["downlink_error"]
    for name, value in row["train"].items():
        found["compression_error/uplink" if name == "compression_error" else f"train/{name}"] = value
    rest = {name: row[name] for name in row.keys() - OWN}
    found |= {f"evaluation/{name}": value for name, value in rest.items() if isinstance(value, (int, float))}
    return found
