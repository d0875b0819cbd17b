"""A run directory: configuration, metrics, events, journal, checkpoints, mirrors, and the final model."""

import fcntl
import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from safetensors.torch import save_file
from torch import Tensor

from server.checkpoints import read_checkpoint, write_checkpoint
from server.journal import Journal
from server.mirrors import MirrorFiles
from server.observers import Observers
from server.spool import DiskSpool
from strategies.base import Method
from strategies.store import Entry, Saved
from thinwire.config import read_toml, to_toml
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
CONFIG = "run.toml"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"


class RunDirectory:
    """The durable side of a server (``strategies.store.Store``), on a folder that one server at a time may hold.

    ``durable=False`` keeps only what people read (metrics, events, model): for simulations, which are not resumed.
    """

    def __init__(self, path: Path, *, mirrors: bool = False, durable: bool = True, keep: int = 2) -> None:
        self.path = path
        self.durable = durable
        self.mirrors = mirrors and durable
        self._keep = keep
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path / "lock")
        except OSError as error:
            raise ConfigError(
                f"cannot write to run directory {path}: {error.strerror}; choose another with --out"
            ) from None
        self._journal = Journal(path / "journal.bin") if durable else None
        self._mirrors = MirrorFiles(path / "mirrors") if self.mirrors else None
        self._files: dict[str, IO[str]] = {}
        self.observers = Observers()  # told of all that is recorded

    # -- the store of a ledger -----------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Into the write-ahead journal, synced to disk."""
        if self._journal is not None:
            self._journal.append(entry)

    def checkpoint(self, saved: Saved) -> None:
        """Mirrors first, then the checkpoint, then the journal starts anew: a stop between them loses nothing."""
        if self._journal is None:
            return
        if self._mirrors is not None:
            self._mirrors.sync()
        write_checkpoint(self.path / CHECKPOINTS, saved, self._keep)
        self._journal.start()

    def load(self) -> tuple[Saved, Iterator[Entry]] | None:
        """The newest sound checkpoint and what the journal has after it."""
        saved = read_checkpoint(self.path / CHECKPOINTS)
        if saved is None or self._journal is None:
            return None
        return saved, _following(saved.round, self._journal.read())

    def write_mirror(self, client: int, chain: bytes, mirror: Tensor) -> None:
        """Into the older of the client's two slots."""
        assert self._mirrors is not None
        self._mirrors.write(client, chain, mirror)

    def read_mirror(self, client: int, chain: bytes) -> Tensor | None:
        """From the slot with that chain."""
        assert self._mirrors is not None
        return self._mirrors.read(client, chain)

    def spool(self) -> DiskSpool:
        """In memory up to 256 MB, then in the run directory."""
        return DiskSpool(self.path / "spool")

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One JSON line: rounds into metrics.jsonl, everything else into events.jsonl."""
        name = METRICS if kind == "round" else EVENTS
        if name not in self._files:
            self._files[name] = open(self.path / name, "a", encoding="utf-8")  # noqa: SIM115  held open
        line = dict(fields) if kind == "round" else {"event": kind, **fields}
        self._files[name].write(json.dumps(_plain({"time": round(time.time(), 3), **line}), default=str) + "\n")
        self._files[name].flush()
        self.observers.record(kind, fields)

    # -- for people ----------------------------------------------------------------------------------------------

    def write_config(self, options: Mapping[str, Any]) -> None:
        """run.toml, as used."""
        aside = self.path / f"{CONFIG}.new"
        aside.write_text(to_toml(options), encoding="utf-8")
        aside.replace(self.path / CONFIG)  # a kill here must not cost the run its configuration

    def read_config(self) -> dict[str, Any]:
        """run.toml of the run to be resumed."""
        return read_toml(self.path / CONFIG)

    def save_model(self, tensors: Mapping[str, Tensor]) -> Path:
        """The final model as safetensors."""
        path = self.path / MODEL
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
        return path

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds of metrics.jsonl; of a round that was recorded twice around a restart, the last."""
        return read_rounds(self.path)

    def close(self) -> None:
        """Close the files and let the folder go."""
        self.observers.close()
        for file in (*self._files.values(), self._lock):
            file.close()
        self._files.clear()
        if self._journal is not None:
            self._journal.close()


def new_run_folder(out: Path | None, method: str) -> Path:
    """The folder of a new run, by default ``runs/DATE-METHOD``. Raises ConfigError when it holds a run already."""
    if out is None:
        base = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{method}"
        out, number = base, 1
        while out.exists():
            number += 1
            out = base.with_name(f"{base.name}-{number}")
    if (out / METRICS).exists() or (out / CHECKPOINTS).exists():
        raise ConfigError(f"{out} holds a run already; choose another --out, or --resume {out} with thinwire server")
    return out


def check_resumable(path: Path) -> Path:
    """The folder of a run that can go on. Raises ConfigError when there is none."""
    if not (path / CHECKPOINTS).exists():
        raise ConfigError(f"{path} holds no run that can be resumed (no checkpoint)")
    return path


def keeps_mirrors(config: RunConfig, method: Method, numel: int) -> bool:
    """Whether the server keeps copies of the clients' mirrored states."""
    if not method.mirrored or config.checkpoint.mirrors == "none":
        return False
    size_bytes = 2 * config.clients * numel * (8 if config.dtype == "float64" else 4)
    return config.checkpoint.mirrors == "disk" or size_bytes <= config.checkpoint.mirror_gigabytes * 1e9


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """The rounds that the metrics.jsonl of a run directory holds, in order; each once."""
    metrics = path / METRICS
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
            found[int(entry["round"])] = entry
        except (ValueError, KeyError):
            continue  # a line cut off by a kill
    return [found[number] for number in sorted(found)]


def _following(number: int, entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries that go on from a round without a gap; what lies behind a gap is lost, and the protocol heals it."""
    for entry in entries:
        if entry.round == number + 1:
            number += 1
            yield entry
        elif entry.round > number:
            return


def _lock(path: Path) -> IO[str]:
    """Hold the folder; raises ConfigError when another server does."""
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115  the lock lives as long as the handle
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"run directory {path.parent} is in use by another server; stop it or choose another"
        ) from None
    return file


def _plain(value: Any) -> Any:
    """A value as JSON has it: what is not finite is null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
