"""A disk that does not take what a run must keep: one line that says what to do."""

import errno
from pathlib import Path

from thinwire.errors import RoundError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refusal(what: str, path: Path, error: OSError, run: Path) -> RoundError:
    """The error to raise when ``path``, the journal or another part of a run directory, could not be written."""
    resume = f"resume with thinwire server --resume {run}"
    if error.errno in FULL:
        return RoundError(f"disk full: cannot write {what} {path} ({error.strerror}); free some space and {resume}")
    return RoundError(f"cannot write {what} {path}: {error.strerror}; look after the disk and {resume}")
