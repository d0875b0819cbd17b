"""Exactly once: whatever is lost, late, doubled or corrupted, the result is as exact as without."""

from pathlib import Path

import pytest
import torch
from world import Faults, World

from strategies.base import Local, Method, Oracle
from strategies.builder import build_method
from strategies.problems import FiniteSum, ridge
from thinwire.errors import RoundError
from thinwire.layout import Layout
from thinwire.random import Key

PROBLEM = ridge(clients=5, rows=60, numel=30)
EXACT = 1e-20


def ef21(downlink: str = "identity", rate: float = 0.8, fraction: float = 0.2) -> Method:
    uplink = {"name": "top-k", "fraction": fraction, "values": "fp32", "scope": "global"}
    down = {"name": downlink, **({"fraction": 0.3, "scope": "global"} if downlink == "top-k" else {})}
    step = {"name": "sgd", "rate": rate / PROBLEM.L}
    return build_method({"name": "ef21"}, uplink, down, step, "full")


def ef14() -> Method:
    uplink = {"name": "top-k", "fraction": 0.2, "values": "fp32", "scope": "global"}
    return build_method(
        {"name": "ef14"}, uplink, {"name": "identity"}, {"name": "sgd", "rate": 0.2 / PROBLEM.L}, "full"
    )


def assert_mirrors_match(world: World) -> None:
    """Each mirror on the server equals the client's committed state, bit for bit."""
    world.catch_everyone_up()
    for record in world.ledger.roster.clients:
        participant = world.network.desks[100 + record.index]._seated[world.ledger.run]
        held = [s for s in (participant._committed, participant._pending) if s is not None and s.chain == record.chain]
        assert held, "neither the committed nor the pending state is what the server knows"
        mirror = world.store.read_mirror(record.index, record.chain)
        if not record.fresh:
            assert mirror is not None
            own = world.method.mirror(held[0].private)
            assert own is not None
            assert torch.equal(mirror, own)


def test_lost_uplinks_leave_the_result_exact() -> None:
    world = World(ef21(), PROBLEM, faults=Faults(lost_answers=0.05)).play(300)
    assert world.error() < EXACT
    assert_mirrors_match(world)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(lost_asks=0.1),
        Faults(late_answers=0.1),
        Faults(doubled=0.3),
        Faults(corrupted=0.1),
        Faults(0.05, 0.05, 0.05, 0.1, 0.05),
    ],
    ids=["lost asks", "late answers", "doubled answers", "corrupted answers", "everything"],
)
def test_every_fault_leaves_the_result_exact_and_the_replicas_equal(faults: Faults) -> None:
    world = World(ef21("top-k", rate=0.4), PROBLEM, faults=faults, participation=0.5).play(550)
    assert world.error() < EXACT
    assert_mirrors_match(world)
    assert len(set(world.replicas())) == 1


def test_doubled_and_late_messages_change_no_bit() -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(40)
    disturbed = World(ef21("top-k"), PROBLEM, faults=Faults(doubled=0.5)).play(40)
    assert disturbed.digest() == undisturbed.digest()


def test_corrupted_answers_are_told_and_never_applied() -> None:
    world = World(ef21(), PROBLEM, faults=Faults(corrupted=0.2)).play(30)
    assert "hostile" in world.events()
    assert_mirrors_match(world)


def test_a_client_that_missed_ten_rounds_returns_and_all_replicas_hold_identical_bits() -> None:
    world = World(ef21("top-k"), PROBLEM).play(5)
    world.network.down.add(103)
    world.play(10)
    world.network.down.clear()
    world.play(3)
    world.catch_everyone_up()
    assert len(set(world.replicas())) == 1


@pytest.mark.parametrize("mirrors", [True, False], ids=["mirror restored", "all reset"])
def test_a_client_that_lost_its_disk_leaves_the_result_exact(mirrors: bool) -> None:
    world = World(ef21(), PROBLEM, mirrors=mirrors).play(50)
    world.start_client(4, keep_disk=False)
    world.play(300)
    assert world.error() < EXACT
    assert ("reset" in world.events()) != mirrors


def test_a_restarted_client_with_its_disk_changes_no_bit(tmp_path: Path) -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(30)
    world = World(ef21("top-k"), PROBLEM, client_folder=tmp_path).play(11)
    for index in range(5):
        world.start_client(index)
        world.play(1)
    assert world.play(14).digest() == undisturbed.digest()
    assert "reset" not in world.events()


def test_a_client_killed_between_answer_and_decision_sends_the_same_bytes_again(tmp_path: Path) -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(20)
    world = World(ef21("top-k"), PROBLEM, client_folder=tmp_path, round={"deadline_seconds": 30.0}).play(7)
    world.network.faults = Faults(lost_answers=1.0)
    with pytest.raises(RoundError, match="fewer than 1 of 5 clients answered"):
        world.coordinator.round()
    world.network.faults = Faults()
    for index in range(5):
        world.start_client(index)
    assert world.play(13).digest() == undisturbed.digest()


def test_a_client_without_private_state_keeps_no_uplink_on_disk_and_sends_the_same_bytes_again(tmp_path: Path) -> None:
    method = build_method(
        {"name": "fedavg"}, {"name": "rand-k", "fraction": 0.2}, {}, {"rate": 0.1 / PROBLEM.L}, "full"
    )
    undisturbed = World(method, PROBLEM).play(12)
    world = World(method, PROBLEM, client_folder=tmp_path).play(5)
    world.network.faults = Faults(lost_answers=1.0)
    with pytest.raises(RoundError):
        world.coordinator.round()
    world.network.faults = Faults()
    for index in range(5):
        world.start_client(index)
        assert world.stores[index].read("pending").uplink == b""
    assert world.play(7).digest() == undisturbed.digest()


def test_ef14_keeps_its_error_when_an_uplink_is_lost() -> None:
    world = World(ef14(), PROBLEM, faults=Faults(lost_answers=0.1)).play(400)
    clean = World(ef14(), PROBLEM).play(400)
    assert world.error() < 10 * clean.error()  # absent clients enlarge the neighbourhood; a lost error would not heal


def test_ef14_starts_anew_when_the_private_state_is_lost() -> None:
    world = World(ef14(), PROBLEM).play(100)
    world.start_client(2, keep_disk=False)
    world.play(300)
    assert "reset" not in world.events()
    assert world.error() < 1e-3


@pytest.mark.parametrize("every", [1, 7, 100], ids=lambda every: f"checkpoint every {every}")
def test_a_killed_server_resumes_with_the_same_bits(tmp_path: Path, every: int) -> None:
    undisturbed = World(ef21("top-k"), PROBLEM, participation=0.5).play(30)
    world = World(ef21("top-k"), PROBLEM, participation=0.5, folder=tmp_path, checkpoint={"every": every})
    for rounds in (5, 1, 12):
        world.play(rounds)
        world.kill_server()
        world.start_server()
    world.play(12)
    assert world.digest() == undisturbed.digest()
    world.catch_everyone_up()
    assert len(set(world.replicas())) == 1
    world.kill_server()


def test_a_server_without_the_tail_of_its_journal_heals(tmp_path: Path) -> None:
    world = World(ef21("top-k", rate=0.5), PROBLEM, folder=tmp_path, checkpoint={"every": 50}).play(60)
    world.kill_server()
    (tmp_path / "journal.bin").write_bytes(b"")  # ten decided rounds are gone, the clients have lived them
    world.start_server()
    assert world.ledger.replicated.version == 50
    world.play(400)
    assert world.error() < EXACT
    world.catch_everyone_up()
    assert len(set(world.replicas())) == 1
    assert_mirrors_match(world)
    world.kill_server()


def test_a_torn_last_entry_of_the_journal_is_dropped(tmp_path: Path) -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(20)
    world = World(ef21("top-k"), PROBLEM, folder=tmp_path, checkpoint={"every": 100}).play(12)
    world.kill_server()
    journal = tmp_path / "journal.bin"
    journal.write_bytes(journal.read_bytes() + b"ROUN\x05\x00\x00\x00\x00\x00\x00\x00half")
    world.start_server()
    assert world.ledger.replicated.version == 12
    assert world.play(8).digest() == undisturbed.digest()
    world.kill_server()


def test_a_damaged_journal_entry_is_never_replayed(tmp_path: Path) -> None:
    world = World(ef21("top-k"), PROBLEM, folder=tmp_path, checkpoint={"every": 100}).play(12)
    world.kill_server()
    journal = tmp_path / "journal.bin"
    data = bytearray(journal.read_bytes())
    data[-3000] ^= 1
    journal.write_bytes(data)
    world.start_server()
    assert world.ledger.replicated.version < 12
    world.play(300)
    assert world.error() < EXACT
    world.kill_server()


def test_a_diverged_replica_is_found_by_its_digest_and_healed() -> None:
    world = World(ef21("top-k"), PROBLEM, checkpoint={"digest_every": 5}).play(7)
    held = world.network.desks[101]._seated[world.ledger.run]._shelf.held
    assert held is not None
    held.replica.method[0] += 1.0  # a cosmic ray
    world.play(6)
    assert ("client-lacks" in world.events()) is True
    world.catch_everyone_up()
    assert len(set(world.replicas())) == 1


class Sick:
    """An oracle that returns NaN in some rounds."""

    def __init__(self, inner: Oracle, sick: range) -> None:
        self._inner, self._sick, self._calls = inner, sick, 0

    def full(self, x: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        return self._inner.full(x) * (float("nan") if self._calls in self._sick else 1.0)

    def sample(self, x: torch.Tensor, key: Key) -> torch.Tensor:
        return self._inner.sample(x, key)

    def local(self, x: torch.Tensor, key: Key, correction: torch.Tensor | None = None) -> Local:
        return self._inner.local(x, key, correction)


def test_a_client_with_a_non_finite_gradient_declines_and_keeps_its_state() -> None:
    oracles: list[Oracle] = [Sick(o, range(20, 25)) if i == 3 else o for i, o in enumerate(PROBLEM.oracles)]
    world = World(ef21(), PROBLEM, oracles=oracles).play(300)
    assert world.error() < EXACT
    lacks = [fields["detail"] for kind, fields in world.store.records if kind == "client-lacks"]  # type: ignore[attr-defined]
    assert lacks
    assert all(detail.startswith("declined: tensor 'x' holds a non-finite value") for detail in lacks)
    assert_mirrors_match(world)


def test_too_few_replies_repeat_the_round_and_then_pause_it_with_what_to_do() -> None:
    world = World(ef21(), PROBLEM, round={"minimum_replies": 4, "deadline_seconds": 3.0, "retries": 2}).play(2)
    world.network.down = set(range(100, 102))
    with pytest.raises(RoundError, match="round 3: fewer than 4 of 5 clients answered, in 3 attempts"):
        world.coordinator.round()
    world.network.down = set()
    assert world.play(3).ledger.replicated.version == 5


def test_a_diverging_run_says_so() -> None:
    with pytest.raises(RoundError, match="diverged"):
        World(ef21(rate=1e200), PROBLEM).play(20)


def test_a_client_with_another_model_is_refused_at_the_door() -> None:
    world = World(ef21(), PROBLEM, round={"deadline_seconds": 3.0})
    smaller = ridge(numel=40)
    stranger = FiniteSum(smaller.oracles, smaller.x0, smaller.smoothness, smaller.L)
    assert stranger.layout == Layout.flat(40)
    other = World(ef21(), stranger)
    world.network.desks[102] = other.network.desks[102]
    world.play(1)
    assert "another model than the server" in world.network.rejected[102]
    assert len(world.network.rejected) == 1
