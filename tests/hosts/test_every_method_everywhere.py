"""Every registered method gives the same bits in the pure loop, in one process and over gRPC: all that the nodes hold.

The loop follows a run on a host over the same oracles, weights and keys. It draws cohorts by another key than a server,
whose cohorts have attempts, so it asks those whom the server asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from hosts_support import CLIENTS, at_desks
from torch import Tensor

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.app import respond
from client.desk import Desk
from client.participant import Participant, Shelf
from client.store import MemoryClientStore
from client.workshop import Workshop, Workshops
from server.evaluation import ServerModel
from server.grids.fleet import FleetGrid
from server.grids.in_process import InProcessGrid
from server.grids.options import FleetOptions
from strategies.arrays import Arrays
from strategies.base import Asks, Federation, Oracle
from strategies.builder import build_method
from strategies.coordinator import Decided
from strategies.estimator import Estimator
from strategies.flower import MethodStrategy, from_arrays
from strategies.loop import World
from strategies.registry import find_method, method_names
from strategies.remembering import private_of
from thinwire import state
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.run_config import RunConfig

from flwr.app import Context, Message  # isort: skip

ROUNDS = 20
BASE: dict[str, Any] = {
    "clients": CLIENTS,
    "rounds": ROUNDS,
    "seed": 3,
    "local": {"steps": 2, "rate": 0.05, "batch": 8},
    "evaluation": {"where": "none"},
    "checkpoint": {"digest_every": 5},
    "task": {"name": "digits", "hidden": []},  # uneven shares, so uneven weights
}
LAYOUT = Layout((Entry("0.weight", (10, 64)), Entry("0.bias", (10,))))  # of its model
UPLINKS: tuple[dict[str, Any], ...] = (
    {"name": "top-k", "fraction": 0.1},
    {"name": "rand-k", "fraction": 0.2},
    {"name": "natural"},
    {"name": "perm-k", "clients": CLIENTS},
    {"name": "identity"},
)
DOWNLINKS: tuple[dict[str, Any], ...] = (
    {"name": "top-k", "fraction": 0.1},
    {"name": "natural"},
    {"name": "natural", "channel": "direct"},
    {"name": "rand-k", "fraction": 0.5},
    {"name": "identity"},
)


def forms(name: str) -> Iterator[dict[str, Any]]:
    """Each pair of compressors that a method admits, with half participation where it admits that."""
    for uplink, downlink in product(UPLINKS, DOWNLINKS):
        for fraction in (0.5, 1.0):
            try:
                method = build_method({"name": name}, uplink, downlink, local=BASE["local"])
                method.check(Federation.uniform(LAYOUT, CLIENTS), fraction)
            except ConfigError:
                continue
            yield {"method": name, "uplink": uplink, "downlink": downlink, "participation": {"fraction": fraction}}
            break


def first(name: str) -> dict[str, Any]:
    """The form of the method that compresses most."""
    found = next(forms(name), None)
    assert found is not None, f"{name} admits none of these compressors: add one that it does"
    return found


# -- hosts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """Digests of all that the nodes hold after the last round."""

    replica: bytes
    server: bytes
    mirrors: tuple[bytes, ...]  # of each client; empty where the method has none
    privates: tuple[bytes, ...]  # of each client, with what its local optimiser keeps


class Played:
    """A run on a host: the server, its clients' desks, and whom it asked."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.config = RunConfig.of({**BASE, **options})
        self.model = ServerModel.of(self.config, "cpu")
        self.strategy = MethodStrategy(
            self.config, layout=self.model.layout, buffers=self.model.buffers, on_round=self._note
        )
        self.cohorts: list[tuple[int, ...]] = []
        self.desks: list[Desk] = []

    def _note(self, decided: Decided, metrics: Any) -> None:
        assert decided.replied == decided.asked
        self.cohorts.append(tuple(decided.asked))

    def open_desks(self, workshops: Sequence[Workshops], shelves: Sequence[Shelf]) -> list[Desk]:
        """A desk for each client."""
        for index, (workshop, shelf) in enumerate(zip(workshops, shelves, strict=True)):
            store = partial(_the, MemoryClientStore())
            self.desks.append(Desk(f"client-{index}", "digits", workshop.open, store, partial(_the, shelf)))
        return self.desks

    def play(self, grid: Any) -> "Played":
        """All rounds; then everyone has the newest replica."""
        self.strategy.start(grid, self.model.initial_arrays(), ROUNDS, 30.0)
        assert self.strategy.coordinator is not None
        self.strategy.coordinator.evaluate()
        return self

    def participants(self) -> list[Participant]:
        """The clients in this run."""
        return [participant for desk in self.desks for participant in desk._seated.values()]

    def standing(self) -> Standing:
        """What everyone holds. Proves on the way that all replicas, and both ends of every mirror, are the same."""
        assert self.strategy.coordinator is not None
        ledger, method = self.strategy.coordinator.ledger, self.strategy.method
        assert not [kind for kind, _ in ledger.store.records if kind not in ("hello", "roster", "round")]
        replica = state.digest(ledger.replicated.replica.method)
        privates, mirrors = [], []
        for participant, record in zip(self.participants(), ledger.roster.clients, strict=True):
            held = participant._shelf.held
            assert held is not None
            assert (held.version, state.digest(held.replica.method)) == (ROUNDS, replica)
            own = next(s for s in (participant._pending, participant._committed) if s and s.chain == record.chain)
            privates.append(state.digest(own.private))
            if method.mirrored:
                kept, its = ledger.store.read_mirror(record.index, record.chain), method.mirror(private_of(own.private))
                assert kept is not None
                assert its is not None
                assert torch.equal(kept, its)
                mirrors.append(state.digest(kept))
        return Standing(replica, state.digest(ledger.server), tuple(mirrors), tuple(privates))


def _the(value: Any, *_: Any) -> Any:
    return value


def in_process(options: dict[str, Any]) -> Played:
    """In one process, as ``thinwire simulate``: one model and one replica for all clients."""
    played = Played(options)
    workshops, shelf = Workshops(played.config.task, "cpu"), Shelf()
    desks = {desk.name: desk for desk in played.open_desks([workshops] * CLIENTS, [shelf] * CLIENTS)}

    def app(message: Message, context: Context) -> Message:
        return respond(desks[str(context.node_config["client-id"])], message)

    return played.play(InProcessGrid(app, CLIENTS, run_id=1))


def on_fleet(options: dict[str, Any]) -> Played:
    """Over gRPC on loopback: each client with a model and a replica of its own."""
    played = Played(options)
    desks = played.open_desks([Workshops({}, "cpu") for _ in range(CLIENTS)], [Shelf() for _ in range(CLIENTS)])
    with FleetGrid(FleetOptions(address="127.0.0.1:0"), run_id=11) as grid, at_desks(grid.address, desks):
        played.play(grid)
        grid.finish()
    return played


# -- the pure loop -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SameTask:
    """The task of a run as the pure loop knows a problem; there is no answer to measure an error from."""

    layout: Layout
    x0: Tensor
    oracles: tuple[Oracle, ...]

    def error(self, x: Tensor) -> float:
        raise AssertionError("only bits are compared")


@dataclass
class Retracing(World):
    """The pure loop, asking those whom a server asked; where the method says whom, that must be them."""

    cohorts: tuple[tuple[int, ...], ...] = ()

    def cohort(self, number: int, participation: float) -> tuple[int, ...]:
        asked, asks = self.cohorts[number - 1], self.method.asks(self.replica, self.server, number)
        if asks is not Asks.SAMPLE:
            assert asked == (tuple(range(CLIENTS)) if asks is Asks.ALL else asks)
        return asked


def in_loop(played: Played) -> Standing:
    """The pure loop with the cohorts and weights of a run on a host, and a model of its own."""
    strategy, model = played.strategy, played.model
    assert strategy.coordinator is not None
    ledger = strategy.coordinator.ledger
    workshop = Workshop(strategy._configuration(), CLIENTS, {}, "cpu")
    arrays = Arrays.of(from_arrays(played.model.initial_arrays()), model.layout, None, ledger.federation.dtype)
    oracles = tuple(workshop.workplace(index).oracle for index in range(CLIENTS))
    problem = SameTask(model.layout, arrays.x, oracles)
    start = World.start(strategy.method, problem, played.config.seed, ledger.federation.weights)
    world = Retracing(**vars(start), cohorts=tuple(played.cohorts))
    for number in range(1, ROUNDS + 1):
        world.play(number)
    mirrors = tuple(state.digest(mirror) for mirror in world.mirrors if mirror is not None)
    privates = tuple(state.digest(private) for private in world.privates)
    return Standing(state.digest(world.replica), state.digest(world.server), mirrors, privates)


# -- the same everywhere -----------------------------------------------------------------------------------------


def check_everywhere(options: dict[str, Any]) -> None:
    here, there = in_process(options), on_fleet(options)
    assert there.cohorts == here.cohorts
    standing = here.standing()
    assert standing == there.standing()
    assert standing == in_loop(here)


@pytest.mark.parametrize("name", method_names())
def test_the_loop_one_process_and_a_fleet_end_with_the_same_bits(name: str) -> None:
    check_everywhere(first(name))


KEPT = {"steps": 2, "rate": 0.01, "batch": 8, "optimiser": "adamw", "keep": True}
BESIDE: dict[str, dict[str, Any]] = {
    "all clients in one coordinated order": {"order": {"name": "cd-grab"}, "participation": {"fraction": 1.0}},
    "sampled clients in a coordinated order": {"order": {"name": "hybrid"}},
    "an order found from the gradients received": {
        "method": "fedavg",
        "uplink": "identity",
        "order": {"name": "cd-grab"},
        "local": {"work": "minibatch", "rate": 0.05, "batch": 8},
        "participation": {"fraction": 1.0},
    },
    "an optimiser that is kept": {"local": KEPT},
    "an optimiser that is kept, in an order of its own": {"local": KEPT, "order": {"name": "grab"}},
    "an optimiser that is kept, by a method without a private state": {
        "method": "fedavg",
        "uplink": "identity",
        "local": KEPT,
    },
    "float64": {"dtype": "float64"},
    "Adam on the server": {"optimiser": {"name": "adam"}},
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_lies_beside_a_method_ends_with_the_same_bits_everywhere(case: str) -> None:
    check_everywhere({**first("ef21"), **BESIDE[case]})


@pytest.mark.slow
@pytest.mark.parametrize("name", method_names())
def test_every_form_ends_with_the_same_bits_everywhere(name: str) -> None:
    for options in forms(name):
        check_everywhere(options)


def takes_gradients(name: str) -> bool:
    """Whether ``local.work`` says what a client computes; other methods decide that themselves."""
    kind = find_method(name)
    return issubclass(kind, Estimator) or "work" in kind.__dataclass_fields__


@pytest.mark.slow
@pytest.mark.parametrize("work", ["minibatch", "full"])
@pytest.mark.parametrize("name", [*filter(takes_gradients, method_names())])
def test_gradients_instead_of_local_training_end_with_the_same_bits_everywhere(name: str, work: str) -> None:
    check_everywhere({**first(name), "local": {"work": work, "rate": 0.05, "batch": 8}})
