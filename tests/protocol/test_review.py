"""Sequences that once broke a round: each test is one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_exactly_once import PROBLEM, assert_mirrors_match, ef14, ef21
from world import Network, World

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.desk import Desk
from client.participant import Shelf
from client.store import DiskClientStore, MemoryClientStore
from compressors import Payload
from server.checkpoints import read_checkpoint, write_checkpoint
from server.grids.in_process import InProcessGrid
from server.journal import Journal
from server.mirrors import MirrorFiles
from strategies import flower
from strategies.base import Federation
from strategies.bundle import Bundle
from strategies.collection import finite
from strategies.coordinator import Decided, _mean
from strategies.grid_transport import GridTransport
from strategies.store import Entry, Saved
from strategies.transport import HELLO, ROUND, WELCOME, Answer, Ask
from thinwire import state
from thinwire.errors import ConfigError, RoundError, WireError
from thinwire.layout import Layout
from thinwire.wire.exchange import PROTOCOL, REASON_LOST_PRIVATE, RoundReply, WelcomeRequest
from thinwire.wire.packet import pack


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


# -- what the server writes down -------------------------------------------------------------------------------------


def restarted(world: World) -> World:
    world.kill_server()
    world.start_server()
    return world


def test_decisions_after_a_damaged_checkpoint_survive_the_next_restart(tmp_path: Path) -> None:
    world = World(ef14(), PROBLEM, folder=tmp_path, checkpoint={"every": 10}).play(35)
    (newest,) = (tmp_path / "checkpoints").glob("round-00000030-*.safetensors")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert restarted(world).ledger.replicated.version == 20  # the journal goes on behind a gap
    digest = world.play(5).digest()
    assert restarted(world).ledger.replicated.version == 25
    assert world.digest() == digest
    world.kill_server()


def test_a_damaged_checkpoint_ahead_never_outlives_a_sound_one(tmp_path: Path) -> None:
    def saved(number: int) -> Saved:
        return Saved("run", 0, number, b"", None, None, ())

    write_checkpoint(tmp_path, saved(60), keep=1).write_bytes(b"damaged")
    write_checkpoint(tmp_path, saved(50), keep=1)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.round == 50


def test_a_full_disk_is_one_line_and_leaves_nothing_of_the_entry(tmp_path: Path) -> None:
    (tmp_path / "journal.bin").symlink_to("/dev/full")
    journal = Journal(tmp_path / "journal.bin")
    with pytest.raises(RoundError, match="No space left"):
        journal.append(Entry(1, 0, (0,), ((0, b"uplink"),), b"downlink"))
    journal.close()


def test_a_mirror_torn_twice_in_a_row_leaves_the_one_before_it(tmp_path: Path) -> None:
    chains = [bytes([number]) * 16 for number in range(3)]
    values = torch.arange(8.0)
    for chain in chains[:2]:
        MirrorFiles(tmp_path).write(0, chain, values)
    for _ in range(2):
        MirrorFiles(tmp_path).write(0, chains[2], values)
        newest = max(tmp_path.iterdir(), key=lambda path: path.read_bytes()[16])
        newest.write_bytes(newest.read_bytes()[:40])  # killed in the middle of the write
        assert MirrorFiles(tmp_path).read(0, chains[1]) is not None


def test_personal_payloads_survive_a_restart_and_are_given_once(tmp_path: Path) -> None:
    world = World(ef21("top-k"), PROBLEM, folder=tmp_path).play(1)
    own = pack({"method.order": Payload("identity", "float64", b"", (b"signs",))})
    world.ledger.personal[2] = own
    world.ledger.checkpoint()
    assert restarted(world).ledger.personal == {2: own}
    world.play(1)
    assert not world.ledger.personal
    assert not restarted(world).ledger.personal  # replayed, not given again
    world.kill_server()


def test_numbers_of_clients_never_replace_those_of_the_record() -> None:
    decided = Decided(7, 0, [0], [0], 1, 2, 3, 0.5, {}, {})
    row = flower._row(decided, {"round": 0.5, "asked": 1.0, "loss": 0.25})
    assert (row["round"], row["asked"], row["loss"]) == (7, [0], 0.25)


def test_metrics_of_clients_are_few_printable_and_finite() -> None:
    assert finite({"loss": 1.0, "bad\x1b[2J": 1.0, "n" * 65: 1.0, "nan": float("nan")}) == {"loss": 1.0}
    flood = [(1.0, {f"client {client} metric {number}": 1.0 for number in range(64)}) for client in range(9)]
    means = _mean([(1.0, {"loss": 2.0}), (1.0, {"loss": 4.0}), *flood])
    assert len(means) == 64
    assert means["loss"] == 3.0
    assert _mean([(2.0**64, {"loss": 1e300}), (1.0, {"other": 1.0})]) == {"other": 1.0}


def test_an_uplink_may_be_as_large_as_the_buffers_beside_it() -> None:
    bundle = Bundle.of(ef21(), Layout.flat(2_000_000))
    federation = Federation.uniform(Layout.flat(10), 2)
    replica, _ = bundle.begin(torch.zeros(10), torch.zeros(2_000_000), federation)
    assert bundle.most_bytes(replica, federation) > 8_000_000


# -- what a client writes down ---------------------------------------------------------------------------------------


class Full(MemoryClientStore):
    """A disk that is full for a while."""

    full = False

    def write(self, slot: str, value: object) -> None:
        if self.full:
            raise ConfigError("cannot write client state: no space left")
        super().write(slot, value)


def test_an_uplink_that_could_not_be_kept_is_never_sent() -> None:
    world = World(ef21("top-k"), PROBLEM, round={"retries": 0})
    store = world.stores[3] = Full()
    world.start_client(3)
    world.play(3)
    world.network.excuse, store.full = ConfigError, True
    assert world.coordinator.round().replied == [0, 1, 2, 4]
    question = next(ask.parts for ask in reversed(world.network.asks) if ask.node == 103)
    store.full = False
    answer = world.network.desks[103].answer(ROUND, question)
    kept: Any = store.read("pending")
    assert kept.uplink == answer["uplink"]
    assert_mirrors_match(world.play(3))


@pytest.mark.parametrize("index", [5, 6])
def test_a_place_beyond_the_roster_is_nonsense(index: int) -> None:
    world = World(ef21("top-k"), PROBLEM).play(1)
    invitation = WelcomeRequest(protocol=PROTOCOL, run="0" * 32, index=index, clients=5, configuration="{}")
    with pytest.raises(WireError, match="place"):
        world.network.desks[100].answer(WELCOME, {"message": invitation.SerializeToString()})


def test_a_message_without_its_run_is_nonsense() -> None:
    world = World(ef21("top-k"), PROBLEM)
    with pytest.raises(WireError, match="run"):
        world.network.desks[100].answer(WELCOME, {"message": WelcomeRequest(clients=1).SerializeToString()})


def test_asking_about_unknown_runs_makes_no_folders(tmp_path: Path) -> None:
    for number in range(5):
        assert DiskClientStore(tmp_path, f"{number:032x}", "client").read("welcome") is None
    assert not list(tmp_path.iterdir())
