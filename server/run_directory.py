"""A run directory: configuration, record (run.sqlite), journal, checkpoints, mirrors, and the final model."""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from server import run_lock
from server.checkpoints import read_checkpoint, write_checkpoint
from server.journal import Journal
from server.mirrors import MirrorFiles
from server.observers import Observers, Recorded
from server.run_store import StoredRun, read_rounds
from server.run_store_writer import RunWriter
from server.spool import DiskSpool
from strategies.base import Method
from strategies.store import Entry, Saved
from thinwire.config import read_toml, to_toml
from thinwire.errors import ConfigError, RoundError
from thinwire.run_config import RunConfig
from thinwire.wire.operator import CONTROL

log = logging.getLogger(__name__)

CONFIG = "run.toml"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"


class RunDirectory:
    """The durable side of a server (``strategies.store.Store``), on a folder that one server at a time may hold.

    ``durable=False`` keeps only what people read (record, model): for simulations, which are not resumed. ``keep`` is
    the number of checkpoints, ``keep_events`` that of the events in the record (0: all). How a run ended
    is noted at the end: with a model it is finished, unless ``end`` or ``failed`` says otherwise.
    """

    def __init__(
        self, path: Path, *, mirrors: bool = False, durable: bool = True, keep: int = 2, keep_events: int = 0
    ) -> None:
        self.path = path
        self.durable = durable
        self.mirrors = mirrors and durable
        self._keep = keep
        self._keep_events = keep_events
        self._end: tuple[str, str] | None = None
        self._passed_over: set[str] = set()  # damaged checkpoints, told once
        try:
            (path / "mirrors" if self.mirrors else path).mkdir(parents=True, exist_ok=True)
            self._lock = run_lock.take(path)
        except OSError as error:
            what = f"cannot write to run directory {path}: {error.strerror}"
            raise ConfigError(f"{what}; make it writable, or choose another with --out") from None
        with contextlib.suppress(OSError):  # that of a process that was killed says where nobody listens any more
            (path / CONTROL).unlink(missing_ok=True)
        self._journal = Journal(path / "journal.bin") if durable else None
        self._mirrors = MirrorFiles(path / "mirrors") if self.mirrors else None
        self._writer: RunWriter | None = None
        self._opening = threading.Lock()  # events come from threads of their own
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
        """The newest sound checkpoint and what the journal has after it; a damaged one is recorded and passed over."""
        saved = read_checkpoint(self.path / CHECKPOINTS, self._pass_over)
        if saved is None or self._journal is None:
            return None
        return saved, self._recorded(saved.round, _following(saved.round, self._journal.read()))

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

    def record(self, kind: str, fields: Mapping[str, Any]) -> int:
        """Record a round's row (kind "round") or an event, and tell the observers; its sequence number."""
        sequence, time = self._record().record(kind, fields)
        self.observers.record(kind, Recorded(fields, sequence, time))
        return sequence

    # -- for people ----------------------------------------------------------------------------------------------

    def write_config(self, options: Mapping[str, Any]) -> None:
        """run.toml, as used; the run is running from now on, in this process."""
        self._record().begin(options)
        self._write_config(options)

    def change_config(self, options: Mapping[str, Any]) -> None:
        """run.toml, as this process goes on with it. Raises ConfigError when the disk does not take it."""
        self._write_config(options)
        self._record().change(options)

    def _write_config(self, options: Mapping[str, Any]) -> None:
        aside = self.path / f"{CONFIG}.new"
        try:
            aside.write_text(to_toml(options), encoding="utf-8")
            aside.replace(self.path / CONFIG)  # a kill here must not cost the run its configuration
        except OSError as error:
            raise ConfigError(f"cannot write {self.path / CONFIG}: {error.strerror}; free some space") from None

    def read_config(self) -> dict[str, Any]:
        """run.toml of the run to be resumed."""
        return read_toml(self.path / CONFIG)

    def save_model(self, tensors: Mapping[str, Tensor]) -> Path:
        """The final model as safetensors; with it the run is finished, unless ``end`` has another word.

        Raises RoundError when the disk does not take it.
        """
        path = self.path / MODEL
        aside = path.with_suffix(".new")
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside)
            aside.replace(path)
        except (OSError, SafetensorError) as error:
            aside.unlink(missing_ok=True)
            raise RoundError(f"cannot write {path}: {error}; free some space and resume") from None
        self._end = self._end or ("finished", "")
        return path

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that are recorded; of a round that was recorded twice around a restart, the last."""
        return read_rounds(self.path)

    def end(self, state: str, reason: str = "") -> None:
        """How the run ends, to be noted on the way out: "finished", "stopped" or "failed", and why."""
        self._end = state, reason

    def failed(self, error: BaseException) -> None:
        """An error ends the run; a keyboard interrupt only stops it."""
        if isinstance(error, KeyboardInterrupt):
            self.end("stopped", "interrupted")
        else:
            self.end("failed", str(error) or type(error).__name__)

    def close(self) -> None:
        """Close the files and let the folder go."""
        self.observers.close()
        if self._writer is not None:
            if self._end is not None:
                self._writer.end(*self._end)
            self._writer.close()
        self._lock.close()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)
        self.close()

    def _recorded(self, number: int, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries after a round; when one has been replayed that a kill left without a row, it is given one."""
        stored = StoredRun(self.path)
        known = {row["round"] for row in stored.rounds(after=number)}
        totals = stored.totals()
        message_bytes = totals["dense_bytes"] // max(1, totals["asked"] + totals["replied"])
        for entry in entries:
            yield entry
            if entry.round not in known:
                self.record("round", _row(entry, message_bytes))

    def _pass_over(self, name: str, reason: str) -> None:
        if name not in self._passed_over:
            self._passed_over.add(name)
            log.warning("checkpoint %s of %s is damaged: %s; the one before it is used", name, self.path, reason)
            self.record("checkpoint-damaged", {"file": name, "detail": reason})

    def _record(self) -> RunWriter:
        """Opened when something is recorded first: whoever only looks leaves the folder as it is."""
        with self._opening:
            if self._writer is None:
                self._writer = RunWriter(self.path, keep_events=self._keep_events, strict=not self.durable)
            return self._writer


def new_run_folder(out: Path | None, method: str) -> Path:
    """The folder of a new run, by default ``runs/DATE-METHOD``. Raises ConfigError when it holds a run already."""
    if out is None:
        base = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{method}"
        out, number = base, 1
        while out.exists():
            number += 1
            out = base.with_name(f"{base.name}-{number}")
    if read_rounds(out) or (out / CHECKPOINTS).exists():
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


def _row(entry: Entry, message_bytes: int) -> dict[str, Any]:
    """What the journal knows of a round: its uplinks to the byte, its downlinks as one for each client asked.

    ``message_bytes``: what one message would have been in float32. Its time is not known, nor what was evaluated.
    """
    sizes = {client: len(uplink) for client, uplink in entry.uplinks}
    return {
        "round": entry.round,
        "attempt": entry.attempt,
        "seconds": 0.0,
        "uplink_bytes": sum(sizes.values()),
        "downlink_bytes": len(entry.downlink) * len(entry.asked),
        "dense_bytes": message_bytes * (len(entry.asked) + len(sizes)),
        "asked": sorted(entry.asked),
        "replied": sorted(sizes),
        "client_bytes": {str(c): [sizes.get(c, 0), len(entry.downlink)] for c in sorted({*entry.asked, *sizes})},
        "client_seconds": {},
        "train": {},
    }


def _following(number: int, entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries that go on from a round without a gap; what lies behind a gap is lost, and the protocol heals it."""
    for entry in entries:
        if entry.round == number + 1:
            number += 1
            yield entry
        elif entry.round > number:
            return
