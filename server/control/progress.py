"""Where a run stands, for the operator: told by the run's and the fleet's threads, looked at from any."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from server.control.tally import FAILURES, Tally
from strategies.helm import Helm
from strategies.roster import ClientRecord
from thinwire.v1.operator_pb2 import (
    CLIENT_STATE_ABSENT,
    CLIENT_STATE_BANNED,
    CLIENT_STATE_CONNECTED,
    CLIENT_STATE_DRAINED,
    Client,
    ClientState,
    Status,
)

ARRIVALS = ("hello", "fleet-opened", "fleet-closed")
MOST_FAILURES = 1_000  # of earlier processes, and before the run is open


class Progress:
    """The open round, the totals of the run, and what was last heard of each client."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """``rows``: the rounds of earlier processes; they count as far as the run has kept them."""
        self.connected: Callable[[], set[str]] = set  # the names of the clients that are connected
        self.helm: Helm | None = None
        self._rows = list(rows)  # until the run is open
        self._tally = Tally.of(self._rows)
        self._lock = threading.RLock()
        self._attempt = 0
        self._asked: tuple[int, ...] = ()
        self._replied: set[int] = set()
        self._round_began: float | None = None
        self._seen: dict[str, float] = {}  # client -> seconds since 1970
        self._addresses: dict[str, str] = {}
        self._failures: deque[Mapping[str, Any]] = deque(maxlen=MOST_FAILURES)  # until the run is open

    @property
    def round(self) -> int:
        """Rounds decided; those that are recorded, as long as the run is not open."""
        return self._tally.run.rounds if self.helm is None else self.helm.version

    @property
    def is_open(self) -> bool:
        """Whether clients are being asked."""
        return bool(self._asked)

    def open(self, helm: Helm) -> None:
        """The run is there; its earlier rounds count, but those beyond it that a lost journal has undone."""
        with self._lock:
            kept = [row for row in self._rows if row["round"] <= helm.version]
            if len(kept) < len(self._rows):
                self._tally = Tally.of(kept)
            self._rows, self.helm = [], helm
            while self._failures:
                self.fail(self._failures.popleft())

    def asked(self, attempt: int, clients: Sequence[int]) -> None:
        """An attempt is open."""
        with self._lock:
            if attempt == 0 or self._round_began is None:
                self._round_began = time.monotonic()
            self._attempt, self._asked, self._replied = attempt, tuple(clients), set()

    def replied(self, client: int) -> None:
        """An answer was accepted."""
        with self._lock:
            self._replied.add(client)
            if self.helm is not None:
                self._seen[self.helm.clients[client].name] = time.time()

    def decided(self) -> None:
        """The attempt is over."""
        with self._lock:
            self._asked, self._replied = (), set()

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """What the run records; from any thread."""
        client = fields.get("client")
        with self._lock:
            if kind == "round":
                self._tally.add(fields)
                if self.helm is None:
                    self._rows.append(fields)
            elif isinstance(client, str) and client:
                self._note(kind, client, fields)

    def _note(self, kind: str, client: str, fields: Mapping[str, Any]) -> None:
        detail = str(fields.get("detail", ""))
        if kind in ARRIVALS:
            self._seen[client] = time.time()
        if kind == "fleet-opened":
            self._addresses[client] = detail.rpartition(" from ")[2][:128]
        if kind in FAILURES:
            self.fail(fields)

    def fail(self, fields: Mapping[str, Any]) -> None:
        """A client's failure, of this process or an earlier one."""
        with self._lock:
            if self.helm is None:
                self._failures.append(fields)
                return
            record = self.helm.client(str(fields.get("client", "")))
            if record is not None:
                detail = str(fields.get("detail") or fields.get("reason") or "")
                self._tally.fail(record.index, int(fields.get("round") or 0), detail)

    def status(self) -> Status:
        """What is known here of where the run stands; the caller fills in the rest."""
        connected = self.connected()
        with self._lock:
            helm, totals = self.helm, self._tally.run
            names = [] if helm is None else [client.name for client in helm.clients]
            began = self._round_began if self._asked else None
            return Status(
                round=self.round,
                attempt=self._attempt if self._asked else 0,
                asked=[names[index] for index in self._asked],
                replied=[names[index] for index in sorted(self._replied)],
                round_seconds=0.0 if began is None else time.monotonic() - began,
                seconds=totals.seconds,
                clients=sum(client.ban is None for client in ([] if helm is None else helm.clients)),
                connected=len(connected),
                uplink_bytes=totals.uplink_bytes,
                downlink_bytes=totals.downlink_bytes,
                dense_bytes=totals.dense_bytes,
                dense_uplink_bytes=round(totals.dense_uplink_bytes),
                metrics=totals.last,
            )

    def clients(self) -> list[Client]:
        """The roster."""
        connected = self.connected()
        with self._lock:
            return [] if self.helm is None else [self._client(record, connected) for record in self.helm.clients]

    def _client(self, record: ClientRecord, connected: set[str]) -> Client:
        tally = self._tally.clients[record.index]
        return Client(
            name=record.name,
            index=record.index,
            weight=record.weight,
            examples=record.examples,
            state=_state(record, connected),
            last_seen=self._seen.get(record.name, 0.0),
            version=-1 if record.version is None else record.version,
            asked=tally.asked,
            replied=tally.replied,
            last_seconds=tally.seconds[-1] if tally.seconds else 0.0,
            mean_seconds=tally.mean_seconds,
            uplink_bytes=tally.uplink_bytes,
            downlink_bytes=tally.downlink_bytes,
            failures=tally.asked - tally.replied,
            last_failure=tally.last_failure,
            address=self._addresses.get(record.name, ""),
        )


def _state(record: ClientRecord, connected: set[str]) -> ClientState:
    """The operator's word before what the network says."""
    if record.ban is not None:
        return CLIENT_STATE_BANNED
    if record.drained:
        return CLIENT_STATE_DRAINED
    return CLIENT_STATE_CONNECTED if record.name in connected else CLIENT_STATE_ABSENT
