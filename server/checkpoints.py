"""Checkpoints: the server's whole state after a round, as safetensors; a manifest beside it makes it count.

``round-00000040-0123456789abcdef.safetensors`` holds the state, ``round-00000040.json`` names it with its size and its
digest. The manifest is written last: a kill at any moment leaves the checkpoint before it, or this one whole.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import thinwire
from server.disk import refusal
from strategies.store import Saved
from thinwire import state
from thinwire.errors import ConfigError, RoundError, WireError

FORMAT = 1
OLD_MAGIC = b"thinwire checkpoint 1\n"  # of files named .checkpoint: this, the digest, the safetensors
_NAME = re.compile(r"round-(\d{8,})(-[0-9a-f]{16}\.safetensors|\.json|\.checkpoint)")


class DamagedError(Exception):
    """A checkpoint is not what was written; says why."""


def write_checkpoint(folder: Path, saved: Saved, keep: int) -> Path:
    """Write it, sync it, let its manifest name it; then forget all but the last ``keep``. The path of the state.

    Raises RoundError when the disk does not take it; what was there before is untouched.
    """
    body = state.pieces(saved)
    digest = _digest(body)
    name = f"round-{saved.round:08d}"
    path, manifest = folder / f"{name}-{digest[:16]}.safetensors", folder / f"{name}.json"
    fields = {"format": FORMAT, "run": saved.run, "round": saved.round, "history": saved.history.hex()}
    fields |= {"file": path.name, "bytes": sum(len(piece) for piece in body), "blake2b": digest}
    fields["software"] = thinwire.__version__
    try:
        folder.mkdir(exist_ok=True)
        _write(path, body)
        _write(manifest, [json.dumps(fields, indent=1).encode() + b"\n"])
        sync_folder(folder)
    except OSError as error:
        raise refusal("checkpoint", path, error, folder.parent) from None
    _forget(folder, manifest, path, keep)
    return path


def read_checkpoint(folder: Path, tell: Callable[[str, str], None] = lambda name, reason: None) -> Saved | None:
    """The newest sound checkpoint; None when there is none.

    ``tell`` hears of every newer one that is damaged: its file, and what is wrong. Raises RoundError when all are,
    ConfigError for one that a newer Thinwire wrote.
    """
    found = _found(folder)
    named = {_named(path) for path in found if path.suffix == ".json"}
    claims = [path for path in found if path.suffix != ".safetensors" or path.name not in named]
    for path in sorted(claims, key=lambda path: (_round(path), path.suffix == ".json"), reverse=True):
        try:
            return _read_old(path) if path.suffix == ".checkpoint" else _read(path)
        except DamagedError as damage:
            tell(path.name, str(damage))
    if claims:
        raise RoundError(f"every checkpoint in {folder} is damaged; the run cannot be resumed")
    return None


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, pieces: Iterable[Any]) -> None:
    """Aside, synced, renamed; nothing is left of what the disk did not take."""
    aside = path.with_suffix(".new")
    try:
        with open(aside, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _forget(folder: Path, manifest: Path, body: Path, keep: int) -> None:
    """Of those up to this one the last few stay; what is ahead was damaged when the run was resumed behind it."""
    rounds = sorted({_round(path) for path in _found(folder) if path.suffix != ".safetensors"})
    kept_rounds = [number for number in rounds if number <= _round(manifest)][-keep:]
    kept = [path for path in _found(folder) if path.suffix != ".safetensors" and _round(path) in kept_rounds]
    names = {path.name for path in kept} | {_named(path) for path in kept} | {body.name}
    gone = [path for path in _found(folder) if path.name not in names] + [*folder.glob("round-*.new")]
    for path in sorted(gone, key=lambda path: path.suffix == ".safetensors"):  # first what makes them count
        path.unlink(missing_ok=True)


def _read(path: Path) -> Saved:
    if path.suffix != ".json":
        raise DamagedError("it has no manifest: that is lost, or the server was killed before it wrote it")
    fields = _manifest(path)
    body = path.with_name(str(fields["file"]))
    try:
        data = body.read_bytes()
    except OSError as error:
        raise DamagedError(f"{body.name} cannot be read: {error.strerror}") from None
    if len(data) != fields.get("bytes"):
        raise DamagedError(f"{body.name} has {len(data)} bytes; its manifest says {fields.get('bytes')}")
    if _digest([data]) != fields.get("blake2b"):
        raise DamagedError(f"{body.name} has another digest than its manifest says")
    saved = _load(data)
    if (saved.run, saved.round, saved.history.hex()) != (fields["run"], _round(path), fields["history"]):
        raise DamagedError(f"{body.name} is of another round or run than its manifest")
    return saved


def _read_old(path: Path) -> Saved:
    data = path.read_bytes()
    head = len(OLD_MAGIC) + 16
    if data[: len(OLD_MAGIC)] != OLD_MAGIC or data[len(OLD_MAGIC) : head].hex() != _digest([data[head:]]):
        raise DamagedError("its checksum is not that of its content")
    return _load(data[head:])


def _load(data: bytes) -> Saved:
    try:
        saved = state.load(data)
    except WireError as error:
        raise DamagedError(str(error)) from None
    assert isinstance(saved, Saved)
    return saved


def _manifest(path: Path) -> dict[str, Any]:
    """Raises DamagedError for what is no manifest, and ConfigError for one of a newer Thinwire."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise DamagedError("the manifest is not JSON") from None
    if not isinstance(fields, dict) or not {"format", "run", "round", "history", "file"} <= fields.keys():
        raise DamagedError("the manifest is not whole")
    if fields["format"] != FORMAT:
        raise ConfigError(
            f"checkpoint {path} has format {fields['format']} and this Thinwire knows {FORMAT}; "
            "use the newer Thinwire that wrote it"
        )
    if not _NAME.fullmatch(str(fields["file"])):
        raise DamagedError(f"the manifest names {str(fields['file'])!r:.80}, which is no checkpoint")
    return fields


def _named(path: Path) -> str:
    """The file that a manifest names; empty where it names none."""
    try:
        return str(_manifest(path)["file"]) if path.suffix == ".json" else ""
    except DamagedError:
        return ""


def _found(folder: Path) -> list[Path]:
    return [path for path in folder.glob("round-*") if _NAME.fullmatch(path.name)]


def _round(path: Path) -> int:
    return int(path.name[len("round-") :].partition(".")[0].partition("-")[0])


def _digest(pieces: Iterable[Any]) -> str:
    """As `b2sum -l 128` prints it."""
    total = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


__all__ = ["read_checkpoint", "sync_folder", "write_checkpoint"]
