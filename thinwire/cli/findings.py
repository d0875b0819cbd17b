"""What an examination finds: one line each, and what to do about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from thinwire.errors import ThinwireError

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of ``thinwire doctor``."""

    name: str  # what was looked at, a word or two
    state: State
    detail: str  # what was found
    advice: str = ""  # what to do; empty where all is well


def well(name: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", detail)


def doubtful(name: str, detail: str, advice: str) -> Finding:
    """It works, but not as well, or not for long."""
    return Finding(name, "warn", detail, advice)


def broken(name: str, detail: str, advice: str = "") -> Finding:
    """It will not work."""
    return Finding(name, "fail", detail, advice)


def tried(name: str, look: Callable[[], Finding | Iterator[Finding]]) -> Iterator[Finding]:
    """What ``look`` finds; an error that Thinwire would raise in a run is a finding too."""
    try:
        found = look()
        yield from [found] if isinstance(found, Finding) else found
    except ThinwireError as error:
        yield broken(name, str(error))
