"""A server and its clients in one process; a network that loses, delays, doubles and corrupts; its own clock."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from client.desk import Desk
from client.participant import Shelf
from client.store import ClientStore, DiskClientStore, MemoryClientStore
from server.run_directory import RunDirectory
from strategies.admission import Admission
from strategies.base import Federation, Method, Oracle
from strategies.bundle import Bundle, Replica
from strategies.coordinator import Coordinator
from strategies.ledger import Ledger
from strategies.loop import Problem
from strategies.replicated import Replicated, history_start
from strategies.roster import Roster
from strategies.store import MemoryStore, Store
from strategies.transport import HELLO, ROUND, WELCOME, Answer, Ask
from thinwire import state
from thinwire.random import Key, uniforms
from thinwire.run_config import RunConfig

RUN = "0123456789abcdef" * 2


@dataclass
class PlainWorkplace:
    """A client's place on a problem with a known answer."""

    bundle: Bundle
    federation: Federation
    template: Replica
    oracle: Oracle
    examples: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  immutable

    def enter(self, buffers: Tensor | None) -> None:
        assert buffers is None

    def metrics(self) -> dict[str, float]:
        return {"examples": 1.0}

    def frozen_digest(self) -> bytes:
        return b""

    def load_frozen(self, packed: bytes) -> None:
        raise AssertionError("nothing is frozen here")

    def evaluate(self, x: Tensor, buffers: Tensor | None) -> tuple[int, dict[str, float]]:
        return 2, {"norm": float((x * x).sum())}


@dataclass
class PlainWorkshop:
    """Opens places on the problem."""

    method: Method
    problem: Problem
    seed: int
    oracles: list[Oracle] = field(default_factory=list)

    def workplace(self, index: int) -> PlainWorkplace:
        federation = Federation(self.problem.layout, len(self.problem.oracles), self.seed, self.problem.x0.dtype)
        bundle = Bundle(self.method)
        template = bundle.begin(torch.zeros_like(self.problem.x0), None, federation)[0]
        oracle = self.oracles[index] if self.oracles else self.problem.oracles[index]
        return PlainWorkplace(bundle, federation, template, oracle)


@dataclass
class Faults:
    """What the network does, by shares of messages in [0, 1]; drawn from the key, so a test is the same every time."""

    lost_asks: float = 0.0
    lost_answers: float = 0.0
    late_answers: float = 0.0  # come in the next round instead
    doubled: float = 0.0
    corrupted: float = 0.0


class Network:
    """``strategies.transport.Transport`` to desks in this process. Node ids are the roster index plus 100."""

    def __init__(self, desks: dict[int, Desk], faults: Faults, seed: int) -> None:
        self.desks = desks
        self.faults = faults
        self.down: set[int] = set()
        self.rejected: dict[int, str] = {}
        self.mute: set[int] = set()  # nodes that never answer
        self.excuse: tuple[type[Exception], ...] | type[Exception] = ()  # errors of a desk that become Error replies
        self.identities: dict[int, str] = {}  # of nodes whose carrier knows better than they say
        self.before: Callable[[Ask], None] = lambda ask: None
        self.asks: list[Ask] = []
        self._clock = 0.0
        self._draws = iter(uniforms(Key(seed, "faults"), 200_000).tolist())
        self._answers: list[Answer] = []
        self._late: list[Answer] = []

    def nodes(self) -> set[int]:
        return set(self.desks) - self.down - self.rejected.keys()

    def send(self, asks: Sequence[Ask], ttl_seconds: float) -> None:
        self._answers += self._late
        self._late = []
        for ask in asks:
            self.asks.append(ask)
            self.before(ask)
            if (
                ask.node not in self.nodes()
                or ask.node in self.mute
                or (ask.kind == ROUND and self._draw(self.faults.lost_asks))
            ):
                continue
            parts = {name: bytes(part) for name, part in ask.parts.items()}
            self._deliver(self._answer(ask, parts))

    def _answer(self, ask: Ask, parts: dict[str, bytes]) -> Answer:
        try:
            return Answer(ask.node, ask.kind, self.desks[ask.node].answer(ask.kind, parts))
        except self.excuse as error:  # as a ClientApp that raises
            return Answer(ask.node, ask.kind, error=str(error))

    def receive(self, timeout_seconds: float) -> Iterator[Answer]:
        if not self._answers:
            self._clock += timeout_seconds + 0.01
        while self._answers:
            yield self._answers.pop(0)

    def forget(self) -> None:
        self._late += self._answers if self.faults.late_answers else []
        self._answers = [answer for answer in self._answers if answer.kind in (HELLO, WELCOME)]

    def reject(self, node: int, reason: str) -> None:
        self.rejected[node] = reason

    def is_named(self, node: int, name: str) -> bool:
        return self.identities.get(node, name) == name

    def now(self) -> float:
        return self._clock

    def pause(self, seconds: float) -> None:
        self._clock += seconds

    def _deliver(self, answer: Answer) -> None:
        if answer.kind != ROUND:
            self._answers.append(answer)
            return
        if self._draw(self.faults.corrupted):
            answer = replace(answer, parts=self._corrupt(dict(answer.parts)))
        if self._draw(self.faults.lost_answers):
            return
        if self._draw(self.faults.late_answers):
            self._late.append(answer)
            return
        self._answers += [answer, answer] if self._draw(self.faults.doubled) else [answer]

    def _corrupt(self, parts: dict[str, bytes]) -> dict[str, bytes]:
        name = max(parts, key=lambda part: len(parts[part]))
        data = bytearray(parts[name])
        data[int(next(self._draws) * len(data))] ^= 1 << int(next(self._draws) * 8)
        return {**parts, name: bytes(data)}

    def _draw(self, share: float) -> bool:
        return share > 0 and next(self._draws) < share


class World:
    """A run on a problem. ``kill`` and ``restart`` do what the words say, to a client or to the server."""

    def __init__(
        self,
        method: Method,
        problem: Problem,
        *,
        participation: float = 1.0,
        faults: Faults | None = None,
        seed: int = 0,
        folder: Path | None = None,
        mirrors: bool = True,
        client_folder: Path | None = None,
        oracles: list[Oracle] | None = None,
        **options: object,
    ) -> None:
        self.method, self.problem, self.folder = method, problem, folder
        self.mirrors = mirrors
        self.config = RunConfig.of(
            {
                "clients": len(problem.oracles),
                "seed": seed,
                "dtype": "float64",
                "participation": {"fraction": participation},
                "round": {"deadline_seconds": 5.0, "patience_seconds": 2.0, "retries": 5},
                **options,
            }
        )
        self.workshop = PlainWorkshop(method, problem, seed, oracles or [])
        self.client_folder = client_folder
        self.stores: dict[int, ClientStore] = {}
        self.network = Network({}, faults or Faults(), seed)
        for index in range(len(problem.oracles)):
            self.start_client(index)
        self.start_server()

    def start_client(self, index: int, *, keep_disk: bool = True) -> None:
        """A new client process; without its disk it has lost everything."""
        name = f"client-{index}"
        if not keep_disk or index not in self.stores:
            self.stores[index] = (
                MemoryClientStore() if self.client_folder is None else DiskClientStore(self.client_folder, RUN, name)
            )
        store = self.stores[index]
        desk = Desk(name, "", lambda configuration, clients: self.workshop, lambda run: store, Shelf)
        self.network.desks[100 + index] = desk

    def start_server(self) -> None:
        """A new server process: from its run directory if it has one."""
        store: Store = (
            MemoryStore(self.mirrors) if self.folder is None else RunDirectory(self.folder, mirrors=self.mirrors)
        )
        self.store = store
        bundle = Bundle(self.method)
        n = len(self.problem.oracles)
        federation = Federation.uniform(self.problem.layout, n, self.config.seed, self.problem.x0.dtype)
        admission = Admission(
            self.network, RUN, frozenset({"identity"}), "{}", self.problem.layout.digest, store.record
        )
        # a desk answers with the layout of its workplace
        loaded = store.load()
        if loaded is None:
            roster = Roster.freeze(RUN, [f"client-{i}" for i in range(n)])
            roster.weigh()
            replica, server = bundle.begin(self.problem.x0.clone(), None, federation)
            shared = Replicated(bundle, replica, history_start(RUN))
            ledger = Ledger(RUN, bundle, federation, self.config, shared, server, roster, store)
            ledger.checkpoint()
        else:
            saved, entries = loaded
            shared = Replicated(bundle, saved.replica, saved.history, saved.round)
            ledger = Ledger(
                RUN,
                bundle,
                federation,
                self.config,
                shared,
                saved.server,
                Roster.restore(RUN, saved.clients),
                store,
            )
            ledger.personal.update(saved.personal)
            ledger.replay(entries)
        self.coordinator = Coordinator(ledger, self.network, admission)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_server()

    def kill_server(self) -> None:
        """The process is gone; its files stay."""
        if isinstance(self.store, RunDirectory):
            self.store.close()

    def play(self, rounds: int) -> "World":
        for _ in range(rounds):
            self.coordinator.round()
        return self

    @property
    def ledger(self) -> Ledger:
        return self.coordinator.ledger

    def error(self) -> float:
        x = self.method.model(self.ledger.replicated.replica.method, self.ledger.server)
        return self.problem.error(x)

    def digest(self) -> bytes:
        return state.digest((self.ledger.replicated.replica, self.ledger.server))

    def events(self) -> list[str]:
        assert isinstance(self.store, MemoryStore)
        return [kind for kind, _ in self.store.records]

    def catch_everyone_up(self) -> None:
        """Ask all clients for an evaluation, so that each holds the newest replica."""
        self.coordinator.evaluate()

    def replicas(self) -> list[bytes]:
        """Digests of the clients' replicas."""
        digests = []
        for desk in self.network.desks.values():
            participant = desk._seated[RUN]
            assert participant._shelf.held is not None
            digests.append(state.digest(participant._shelf.held.replica))
        return digests
