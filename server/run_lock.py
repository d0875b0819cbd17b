"""Who holds a run directory: an advisory lock on its file ``lock``, gone with the process that took it."""

import errno
import fcntl
import time
from pathlib import Path
from typing import IO

from thinwire.errors import ConfigError

NAME = "lock"
GLANCE_SECONDS = 0.2  # a reader that looks whether somebody holds it holds it itself for a moment


def take(folder: Path) -> IO[str]:
    """Hold the folder until the file is closed. Raises ConfigError when another process does, OSError as open does."""
    file = open(folder / NAME, "a", encoding="utf-8")  # noqa: SIM115  the lock lives as long as the handle
    deadline = time.monotonic() + GLANCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            file.close()
            raise ConfigError(
                f"run directory {folder} is in use by another server; stop it or choose another"
            ) from None


def held(folder: Path) -> bool:
    """Whether a living process holds the folder, this one included."""
    try:
        with open(folder / NAME, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)  # somebody else's; a run is never pruned on a guess
    return False
