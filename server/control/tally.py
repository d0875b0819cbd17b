"""What clients and the whole run have come to, by the rows of the rounds."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.totals import Totals

RECENT = 20  # answers over which a client's mean time is taken
FAILURES = ("client-error", "hostile", "client-lacks", "refused", "reset", "banned")
"""Events that say why a client's part in the run came to nothing."""


@dataclass
class ClientTally:
    """One client, over the whole run."""

    asked: int = 0
    replied: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    last_failure: str = ""
    failed_in: int = 0  # the round of that failure

    @property
    def mean_seconds(self) -> float:
        """Of its last answers."""
        return sum(self.seconds) / len(self.seconds) if self.seconds else 0.0


@dataclass
class Tally:
    """All of them, and the totals of the run."""

    run: Totals = field(default_factory=Totals)
    clients: dict[int, ClientTally] = field(default_factory=lambda: defaultdict(ClientTally))

    @staticmethod
    def of(rows: Iterable[Mapping[str, Any]]) -> "Tally":
        """Of so many rounds."""
        tally = Tally()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: Mapping[str, Any]) -> None:
        """One round."""
        self.run.add_row(row)
        replied = set(row["replied"])
        for index in row["asked"]:
            client = self.clients[index]
            client.asked += 1
            client.replied += index in replied
            if index not in replied and client.failed_in != row["round"]:
                self.fail(index, row["round"], "no answer in time")
        for index, (up, down) in row.get("client_bytes", {}).items():
            self.clients[int(index)].uplink_bytes += up
            self.clients[int(index)].downlink_bytes += down
        for index, seconds in row.get("client_seconds", {}).items():
            self.clients[int(index)].seconds.append(float(seconds))

    def fail(self, index: int, round: int, detail: str) -> None:
        """What a client's failure said; one of an earlier round than the last is no news."""
        client = self.clients[index]
        if round and round < client.failed_in:
            return
        client.last_failure, client.failed_in = (f"round {round}: " if round else "") + detail[:1000], round
