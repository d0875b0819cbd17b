"""One of many identities: one in a folder of certificates that no other process on this machine uses.

For clients that are made in numbers (``docker compose up --scale client=8``) and share a folder of certificates and one
of states. A claim is a file lock, so it ends with the process, however that ends. The lock file remembers the host
name: a container that comes back takes its old name and finds its state; a new one takes a name that was never used, or
else that of a host that is gone, and its state with it.
"""

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from thinwire.errors import ConfigError

MOST_HOST_BYTES = 256


@dataclass(frozen=True)
class Claim:
    """An identity that is this process's own as long as it lives."""

    name: str
    certificate: Path
    key: Path
    descriptor: int  # holds the lock


def claim(folder: Path, state: Path, host: str | None = None) -> Claim:
    """Take an identity of ``folder`` (NAME.pem with NAME.key); the locks are in ``state``, which all claimants share.

    Raises ConfigError where the folder has none or all are taken, saying how many there are.
    """
    me = (host or socket.gethostname()).encode()[:MOST_HOST_BYTES]
    names, locks = _names(folder), state / "identities"
    try:
        locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = {name: _last_holder(locks / name) for name in names}
        for name in sorted(names, key=lambda name: (held[name] != me, held[name] != b"")):
            descriptor = _lock(locks / name)
            if descriptor is not None:
                os.pwrite(descriptor, me, 0)
                os.ftruncate(descriptor, len(me))
                return Claim(name, folder / f"{name}.pem", folder / f"{name}.key", descriptor)
    except OSError as error:
        raise ConfigError(f"cannot claim an identity in {locks}: {error.strerror}; choose another --state") from None
    raise ConfigError(f"all {len(names)} identities in {folder} are taken; sign more with thinwire certs client NAME")


def _lock(path: Path) -> int | None:
    """The descriptor that holds the lock; None where another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _last_holder(path: Path) -> bytes:
    return path.read_bytes()[:MOST_HOST_BYTES] if path.exists() else b""


def _names(folder: Path) -> list[str]:
    found = [path.stem for path in folder.glob("*.pem") if path.with_suffix(".key").exists()]
    if not found:
        raise ConfigError(f"{folder} holds no NAME.pem with NAME.key; sign some with thinwire certs client NAME")
    return sorted(found, key=lambda name: (len(name), name))  # client-2 before client-10
