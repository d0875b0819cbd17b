"""One of many identities: one in a folder of certificates that no other process on this machine uses.

For clients that are made in numbers (``docker compose up --scale client=8``) and share a folder of certificates and one
of states. A claim is a file lock, so it ends with the process, however that ends. The lock file remembers the host
name: a container that comes back takes its old name and finds its state. A new one takes the name that was left last,
and its state with it: containers that were made anew in the middle of a run go on as its clients. What a server refused
is tried last.
"""

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from thinwire.errors import ConfigError

MOST_HOST_BYTES = 256
REFUSED = b"\0"
"""In the place of a host, in the lock file of a name that its server refused; no host is called so."""


@dataclass(frozen=True)
class Claim:
    """An identity that is this process's own as long as it lives."""

    name: str
    certificate: Path
    key: Path
    descriptor: int  # holds the lock

    def refused(self) -> None:
        """The server will not have this name: whoever claims next takes another, if there is one."""
        _write(self.descriptor, REFUSED)


def claim(folder: Path, state: Path, host: str | None = None) -> Claim:
    """Take an identity of ``folder`` (NAME.pem with NAME.key); the locks are in ``state``, which all claimants share.

    Raises ConfigError where the folder has none or all are taken, saying how many there are.
    """
    me = (host or socket.gethostname()).encode()[:MOST_HOST_BYTES]
    names, locks = _names(folder), state / "identities"
    try:
        locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in sorted(names, key=lambda name: _rank(locks / name, me)):
            descriptor = _lock(locks / name)
            if descriptor is not None:
                _write(descriptor, me)
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


def _rank(path: Path, me: bytes) -> tuple[int, int]:
    """The smaller, the better: one's own, what was used last, what was never used, what was refused first."""
    if not path.exists():
        return 2, 0
    holder, when = path.read_bytes()[:MOST_HOST_BYTES], path.stat().st_mtime_ns
    if holder == REFUSED:
        return 3, when
    return (0, 0) if holder == me else (1, -when)


def _write(descriptor: int, holder: bytes) -> None:
    os.pwrite(descriptor, holder, 0)
    os.ftruncate(descriptor, len(holder))


def _names(folder: Path) -> list[str]:
    found = [path.stem for path in folder.glob("*.pem") if path.with_suffix(".key").exists()]
    if not found:
        raise ConfigError(f"{folder} holds no NAME.pem with NAME.key; sign some with thinwire certs client NAME")
    return sorted(found, key=lambda name: (len(name), name))  # client-2 before client-10
