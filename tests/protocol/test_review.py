"""Sequences that once broke a round: each test is one of them."""

from collections.abc import Iterator

import pytest
from test_exactly_once import PROBLEM, assert_mirrors_match, ef14, ef21
from world import Network, World

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.desk import Desk
from client.participant import Shelf
from client.store import MemoryClientStore
from server.grids.in_process import InProcessGrid
from strategies.grid_transport import GridTransport
from strategies.transport import HELLO, ROUND, WELCOME, Answer, Ask
from thinwire import state
from thinwire.wire.exchange import REASON_LOST_PRIVATE, RoundReply


class OneByOne(Network):
    """Answers come one at a time, so that the server looks around between any two of them."""

    def receive(self, timeout_seconds: float) -> Iterator[Answer]:
        if not self._answers:
            self._clock += timeout_seconds + 0.01
            return
        self._clock += 0.01
        yield self._answers.pop(0)


def slow(world: World) -> World:
    """The same world with answers that come one at a time."""
    world.network.__class__ = OneByOne
    return world


def stranger(name: str, world: World) -> Desk:
    store = MemoryClientStore()
    return Desk(name, "", lambda configuration, clients: world.workshop, lambda run: store, Shelf)


# -- the door, while a round is open ---------------------------------------------------------------------------------


def test_a_client_that_must_be_welcomed_again_costs_nobody_his_answer() -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(8)
    world = slow(World(ef21("top-k"), PROBLEM)).play(3)
    world.start_client(0, keep_disk=False)
    decided = world.coordinator.round()
    assert (decided.attempt, decided.replied) == (0, [0, 1, 2, 3, 4])
    assert decided.seconds < 1.0
    assert world.play(4).digest() == undisturbed.digest()


def test_a_stranger_at_the_door_costs_nobody_his_answer() -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(6)
    world = slow(World(ef21("top-k"), PROBLEM)).play(3)

    def come(ask: Ask) -> None:
        if ask.kind == ROUND and 900 not in world.network.desks:
            world.network.desks[900] = stranger("mallory", world)

    world.network.before = come
    decided = world.coordinator.round()
    assert decided.replied == [0, 1, 2, 3, 4]
    assert decided.seconds < 1.0
    assert world.play(2).digest() == undisturbed.digest()
    assert "roster" in world.network.rejected[900]


def test_strangers_that_say_nothing_hold_up_no_round() -> None:
    world = slow(World(ef21("top-k"), PROBLEM)).play(2)
    for node in range(900, 910):
        world.network.mute.add(node)
        world.network.desks[node] = stranger("mute", world)
        assert world.coordinator.round().seconds < 1.0
    greeted = [ask for ask in world.network.asks if ask.kind == HELLO and ask.node == 900]
    assert len(greeted) == 1


def test_a_refused_node_is_asked_no_more() -> None:
    world = World(ef21("top-k"), PROBLEM)
    world.network.reject = lambda node, reason: None  # type: ignore[method-assign]  # as on Flower's own grids
    smaller = World(ef21("top-k"), PROBLEM)
    smaller.workshop.problem = type(PROBLEM)(PROBLEM.oracles, PROBLEM.x0[:7], PROBLEM.smoothness, PROBLEM.L)
    world.network.desks[102] = smaller.network.desks[102]
    world.play(5)
    assert len([ask for ask in world.network.asks if ask.kind == WELCOME and ask.node == 102]) == 1


def test_nobody_takes_the_seat_of_another_under_his_name() -> None:
    world = World(ef21("top-k"), PROBLEM).play(2)
    world.network.down.add(104)
    world.network.identities[900] = "mallory"
    world.network.desks[900] = stranger("client-4", world)
    world.play(3)
    assert "'client-4'" in world.network.rejected[900]
    assert world.ledger.roster.clients[4].node == 104


# -- resets ----------------------------------------------------------------------------------------------------------


def test_a_reset_asks_again_all_whose_answers_it_dropped() -> None:
    world = slow(World(ef21("top-k"), PROBLEM)).play(3)
    for index in (1, 4):  # of two clients the mirrors are damaged, and one of them has lost its own state too
        world.store._mirrors[index].clear()  # type: ignore[attr-defined]
    world.start_client(4, keep_disk=False)
    decided = world.coordinator.round()
    assert decided.replied == [0, 1, 2, 3, 4]
    assert decided.seconds < 1.0
    assert_mirrors_match(world)


@pytest.mark.parametrize("mirrors", [True, False])
def test_a_client_that_the_server_knows_as_a_newcomer_cannot_reset_the_others(mirrors: bool) -> None:
    world = World(ef14(), PROBLEM, mirrors=mirrors).play(2)
    chains = [record.chain for record in world.ledger.roster.clients]
    honest = world.network.desks[103].answer

    def claim(kind: str, parts: dict[str, bytes]) -> dict[str, bytes]:
        answer = honest(kind, parts)
        if kind == ROUND:
            reply = RoundReply.FromString(answer["message"])
            reply.reason = REASON_LOST_PRIVATE
            answer["message"] = reply.SerializeToString()
        return answer

    world.network.desks[103].answer = claim  # type: ignore[method-assign, assignment]
    assert world.coordinator.round().replied == [0, 1, 2, 4]
    assert "reset" not in world.events()
    assert world.ledger.roster.clients[3].chain == chains[3]


# -- a carrier with nothing to carry ---------------------------------------------------------------------------------


def test_a_transport_without_open_questions_waits_for_nodes_instead_of_spinning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    transport = GridTransport(InProcessGrid(lambda message, context: message, 1, run_id=1))
    monkeypatch.setattr(transport, "pause", waited.append)
    assert list(transport.receive(1.0)) == []
    assert waited == [1.0]


def test_the_replica_is_hashed_once_a_round_however_many_clients_prove_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[object] = []
    real = state.digest

    def count(value: object) -> bytes:
        hashed.append(value)
        return real(value)

    world = World(ef21("top-k"), PROBLEM, checkpoint={"digest_every": 1})
    monkeypatch.setattr(state, "digest", count)
    world.play(1)
    assert len(hashed) == 1 + len(PROBLEM.oracles)  # once on the server, and once on every client
