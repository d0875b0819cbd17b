"""Checkpoints: the server's whole state after a round, as safetensors with a checksum; the last few are kept."""

import hashlib
import os
from pathlib import Path

from strategies.store import Saved
from thinwire import state
from thinwire.errors import RoundError, WireError

MAGIC = b"thinwire checkpoint 1\n"


def write_checkpoint(folder: Path, saved: Saved, keep: int) -> Path:
    """Write aside, sync, rename; then forget the oldest. Raises RoundError when the disk does not take it."""
    path = folder / f"round-{saved.round:08d}.checkpoint"
    aside = path.with_suffix(".new")
    try:
        folder.mkdir(exist_ok=True)
        body, checksum = state.pieces(saved), hashlib.blake2b(digest_size=16)
        for piece in body:
            checksum.update(piece)
        with open(aside, "wb") as file:
            file.write(MAGIC + checksum.digest())
            file.writelines(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(folder)
    except OSError as error:
        raise RoundError(f"cannot write checkpoint {path}: {error.strerror}; free some space and resume") from None
    written = sorted(folder.glob("round-*.checkpoint"))
    past = written[: written.index(path) + 1]  # what is ahead was damaged when the run was resumed behind it
    for old in {*written} - {*past[-keep:]}:
        old.unlink()
    return path


def read_checkpoint(folder: Path) -> Saved | None:
    """The newest sound checkpoint; None when there is none. Raises RoundError when all that are there are damaged."""
    paths = sorted(folder.glob("round-*.checkpoint"), reverse=True)
    for path in paths:
        data = path.read_bytes()
        head = len(MAGIC) + 16
        body = data[head:]
        if data[: len(MAGIC)] == MAGIC and data[len(MAGIC) : head] == hashlib.blake2b(body, digest_size=16).digest():
            try:
                saved = state.load(body)
            except WireError:
                continue
            assert isinstance(saved, Saved)
            return saved
    if paths:
        raise RoundError(f"every checkpoint in {folder} is damaged; the run cannot be resumed")
    return None


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
