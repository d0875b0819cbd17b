"""Steering: who may hold, stop and change a run, and when. Knows no network and no file.

The run's own thread asks before each attempt at a round whether to go on (``between``), tells what happens in it, and
looks between messages for clients that are no longer wanted (``unwanted``). Whoever steers does so in these calls, by
the ``Helm``, so that nothing of a run is ever touched by two threads.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from strategies.helm import Helm


class Stopped(Exception):  # noqa: N818  an end, not an error
    """The run ends here because whoever steers wants it to; nothing is lost."""


class Steering(Protocol):
    """Whoever steers a run. All calls come from the run's thread."""

    def open(self, helm: "Helm") -> None:
        """The run is there, with its roster."""
        ...

    def gathering(self) -> None:
        """The clients of a new run are still awaited; called every second or so. Raises Stopped to give it up."""
        ...

    def between(self) -> None:
        """No round is open: what is due is done now; holds the run as long as it likes. Raises Stopped to end it."""
        ...

    def asked(self, round: int, attempt: int, clients: Sequence[int]) -> None:
        """An attempt at a round is open."""
        ...

    def replied(self, client: int) -> None:
        """A client has given its answer to the open attempt."""
        ...

    def decided(self) -> None:
        """The open attempt is over, one way or the other."""
        ...

    def unwanted(self) -> Mapping[str, str]:
        """Clients that are to go at once, by name, with the reason that each is told; asked while a round is open."""
        ...


class Unsteered:
    """Nobody steers: the run goes on to its end."""

    def open(self, helm: "Helm") -> None:
        """Nothing is done."""

    def gathering(self) -> None:
        """Wait on."""

    def between(self) -> None:
        """Go on."""

    def asked(self, round: int, attempt: int, clients: Sequence[int]) -> None:
        """Nobody looks."""

    def replied(self, client: int) -> None:
        """Nobody looks."""

    def decided(self) -> None:
        """Nobody looks."""

    def unwanted(self) -> Mapping[str, str]:
        """Nobody has to go."""
        return {}
