"""Peers that lie: whatever one says, the others' run has the bits that it would have without him."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from test_exactly_once import PROBLEM, assert_mirrors_match, ef21
from world import RUN, World

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.workshop import Workshop
from compressors import Payload
from compressors.identity import Identity
from strategies.transport import BASE, EVALUATE, MESSAGE, ROUND, UPLINK, WELCOME
from thinwire import state
from thinwire.errors import ThinwireError, WireError
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.exchange import (
    REASON_LOST_PRIVATE,
    REASON_MISSING_REPLICA,
    REASON_UNWELCOME,
    Base,
    DownlinkStep,
    RoundReply,
    RoundRequest,
    Snapshot,
    WelcomeRequest,
    digest,
)
from thinwire.wire.packet import pack, unpack

Parts = dict[str, bytes]
LIAR = 2

# -- a hostile client ------------------------------------------------------------------------------------------------


def reworded(parts: Parts, **fields: Any) -> Parts:
    reply = RoundReply.FromString(parts[MESSAGE])
    for name, value in fields.items():
        setattr(reply, name, value)
    return {**parts, MESSAGE: reply.SerializeToString()}


def resent(parts: Parts, uplink: bytes) -> Parts:
    """Another uplink under a right digest."""
    return {**reworded(parts, uplink_digest=digest(uplink)), UPLINK: uplink}


def repacked(parts: Parts, change: Callable[[Payload], Payload], name: str = "method.update") -> Parts:
    payloads = unpack(parts[UPLINK], Payload, 1 << 30)
    return resent(parts, pack({name: change(payloads["method.update"])}))


def dense(parts: Parts, value: float) -> Parts:
    layout = Layout.flat(len(PROBLEM.x0))
    payload = Identity().encode(torch.zeros_like(PROBLEM.x0), layout, Key(0)).payload
    body = struct.pack("<d", value) * layout.numel
    return resent(parts, pack({"method.update": replace(payload, streams=(body,))}))


def flooded(parts: Parts) -> Parts:
    reply = RoundReply.FromString(parts[MESSAGE])
    reply.metrics.update({f"m{number}": 1.0 for number in range(100_000)})
    return {**parts, MESSAGE: reply.SerializeToString()}


LIES: dict[str, Callable[[Parts], Parts]] = {
    "nothing": lambda parts: {},
    "garbage": lambda parts: {MESSAGE: b"\xff" * 99, UPLINK: b"\xff" * 99},
    "garbage uplink": lambda parts: resent(parts, b"\xff" * 999),
    "wrong digest": lambda parts: {**parts, UPLINK: parts[UPLINK] + b"\0"},
    "flipped bit": lambda parts: {**parts, UPLINK: parts[UPLINK][:-9] + b"\x01" + parts[UPLINK][-8:]},
    "flipped bit under a right digest": lambda parts: resent(parts, parts[UPLINK][:40] + b"\x7f" + parts[UPLINK][41:]),
    "another index": lambda parts: reworded(parts, client=LIAR + 1),
    "another run": lambda parts: reworded(parts, run="f" * 32),
    "another incarnation": lambda parts: reworded(parts, incarnation=9),
    "a former round": lambda parts: reworded(parts, round=1),
    "a later round": lambda parts: reworded(parts, round=1 << 60),
    "another attempt": lambda parts: reworded(parts, attempt=7),
    "another chain": lambda parts: reworded(parts, chain=b"\0" * 16),
    "unknown reason": lambda parts: reworded(parts, reason=99),
    "always lost": lambda parts: reworded(parts, reason=REASON_LOST_PRIVATE),
    "always without replica": lambda parts: reworded(parts, reason=REASON_MISSING_REPLICA),
    "always unwelcome": lambda parts: reworded(parts, reason=REASON_UNWELCOME),
    "a long excuse": lambda parts: reworded(parts, reason=REASON_LOST_PRIVATE, detail="x" * 100_000),
    "dense": lambda parts: dense(parts, 1.0),
    "dense nan": lambda parts: dense(parts, float("nan")),
    "unknown codec": lambda parts: repacked(parts, lambda p: replace(p, codec="gzip")),
    "another codec": lambda parts: repacked(parts, lambda p: replace(p, codec="rand-k")),
    "another dtype": lambda parts: repacked(parts, lambda p: replace(p, dtype="float32")),
    "another name": lambda parts: repacked(parts, lambda p: p, "method.other"),
    "a sidecar that is not there": lambda parts: repacked(parts, lambda p: p, "buffers.mean"),
    "too many indices": lambda parts: repacked(parts, lambda p: replace(p, parameters=b"\x01\xff\xff\xff\xff")),
    "no streams": lambda parts: repacked(parts, lambda p: replace(p, streams=())),
    "long streams": lambda parts: repacked(parts, lambda p: replace(p, streams=(p.streams[0], b"\0" * 300_000))),
    "a huge packet": lambda parts: resent(parts, b"\0" * (2 << 20)),
    "a flood of metrics": flooded,
}


@cache
def run_without() -> bytes:
    """Client LIAR is asked in vain in rounds 3 to 5."""
    world = World(ef21("top-k"), PROBLEM).play(2)
    world.network.mute.add(100 + LIAR)
    return world.play(3).digest()


@pytest.mark.parametrize("lie", LIES)
def test_a_client_that_lies_is_as_good_as_absent(lie: str) -> None:
    world = World(ef21("top-k"), PROBLEM).play(2)
    desk = world.network.desks[100 + LIAR]
    honest = desk.answer
    desk.answer = lambda kind, parts: LIES[lie](honest(kind, parts)) if kind == ROUND else honest(kind, parts)  # type: ignore[method-assign]
    world.play(3)
    desk.answer = honest  # type: ignore[method-assign]
    assert world.digest() == run_without()
    world.play(3)
    assert_mirrors_match(world)
    assert len(set(world.replicas())) == 1


def test_answers_of_former_rounds_count_for_nothing() -> None:
    world = World(ef21("top-k"), PROBLEM).play(1)
    desk = world.network.desks[100 + LIAR]
    honest, kept = desk.answer, []

    def replay(kind: str, parts: Parts) -> Parts:
        if kind != ROUND:
            return honest(kind, parts)
        kept.append(honest(kind, parts))
        return kept[0]

    desk.answer = replay  # type: ignore[method-assign, assignment]
    world.play(1)
    chain = world.ledger.roster.clients[LIAR].chain
    assert world.play(3).digest() == run_without()
    assert world.ledger.roster.clients[LIAR].chain == chain


def test_a_client_that_sends_anothers_uplink_changes_nobody_elses_mirror() -> None:
    world = World(ef21("top-k"), PROBLEM).play(2)
    stolen: list[bytes] = []
    victim, thief = world.network.desks[101], world.network.desks[100 + LIAR]
    honest_victim, honest_thief = victim.answer, thief.answer

    def overheard(kind: str, parts: Parts) -> Parts:
        answer = honest_victim(kind, parts)
        stolen.extend([answer[UPLINK]] if kind == ROUND else [])
        return answer

    victim.answer = overheard  # type: ignore[method-assign, assignment]
    thief.answer = lambda kind, parts: (  # type: ignore[method-assign]
        resent(honest_thief(kind, parts), stolen[-1]) if kind == ROUND else honest_thief(kind, parts)
    )
    world.play(2)
    victim.answer, thief.answer = honest_victim, honest_thief  # type: ignore[method-assign]
    world.play(3)  # the thief's own state is not what the server knows of it: it is given its mirror
    assert "client-lacks" in world.events()
    assert_mirrors_match(world)


@pytest.mark.parametrize("claim", [0, 1, 1 << 63])
def test_examples_claimed_after_the_start_change_no_weight(claim: int) -> None:
    world = World(ef21("top-k"), PROBLEM).play(1)
    weights = world.ledger.federation.weights
    world.ledger.roster.clients[LIAR].welcomed = False
    workplace = world.network.desks[100 + LIAR]._seated[RUN].workplace
    workplace.examples = claim  # type: ignore[misc]
    world.play(2)
    assert world.ledger.federation.weights == weights
    assert world.digest() == World(ef21("top-k"), PROBLEM).play(3).digest()


# -- a hostile server ------------------------------------------------------------------------------------------------


def snapshot_of(replica: Any, version: int = 2) -> bytes:
    body = state.dump(replica) if not isinstance(replica, bytes) else replica
    return Base(snapshot=Snapshot(version=version, state=body), target_history=b"h" * 16).SerializeToString()


def structured(structure: Any) -> bytes:
    """A state of no tensors with this structure."""
    header = json.dumps({"__metadata__": {"structure": structure}}).encode()
    return struct.pack("<Q", len(header)) + header


def with_downlink(packet: bytes, version: int = 3) -> Callable[[RoundRequest, Base], bytes]:
    def make(request: RoundRequest, base: Base) -> bytes:
        step = DownlinkStep(version=version, packet=packet)
        return Base(downlinks=[step], base_history=base.target_history, target_history=b"x" * 16).SerializeToString()

    return make


def ask(base: Any, **fields: Any) -> Callable[[RoundRequest, Base], tuple[RoundRequest, bytes]]:
    def make(request: RoundRequest, honest: Base) -> tuple[RoundRequest, bytes]:
        forged = RoundRequest()
        forged.CopyFrom(request)
        for name, value in fields.items():
            setattr(forged, name, value)
        if base is None:
            return forged, honest.SerializeToString()
        return forged, base(request, honest) if callable(base) else base

    return make


NAN = Payload("identity", "float64", b"", (struct.pack("<d", float("nan")) * len(PROBLEM.x0),))
ORDERS: dict[str, Callable[[RoundRequest, Base], tuple[RoundRequest, bytes]]] = {
    "garbage base": ask(b"\xff" * 50),
    "empty base": ask(b""),
    "garbage snapshot": ask(snapshot_of(b"\xff" * 64)),
    "empty snapshot": ask(snapshot_of(b"")),
    "snapshot with a huge header": ask(snapshot_of(struct.pack("<Q", 1 << 62) + b"{}")),
    "snapshot nested deeply": ask(snapshot_of(structured('{"tuple":[' * 5_000 + "]}" * 5_000))),
    "snapshot without a kind": ask(snapshot_of(structured("{}"))),
    "snapshot of a class": ask(snapshot_of(structured('{"class":"os:system","fields":{}}'))),
    "snapshot of another shape": ask(snapshot_of((torch.zeros(1 << 16),))),
    "snapshot of another version": ask(None, target_version=1 << 40),
    "garbage downlink": ask(with_downlink(b"\xff" * 99)),
    "empty downlink": ask(with_downlink(pack({}))),
    "downlink of another codec": ask(with_downlink(pack({"method.model": NAN}))),
    "downlink of another version": ask(with_downlink(pack({}), 1 << 40)),
    "unknown chain": ask(None, chain=b"c" * 16),
    "garbage mirror": ask(None, chain=b"c" * 16, mirror=b"\xff" * 99),
    "empty mirror": ask(None, chain=b"c" * 16, mirror=pack({})),
    "mirror of nan": ask(None, chain=b"c" * 16, mirror=pack({"mirror": NAN})),
    "another run": ask(None, run="f" * 32),
    "no run": ask(None, run=""),
    "a path for a run": ask(None, run="../../../../etc"),
    "another incarnation": ask(None, incarnation=7),
    "another replica": ask(None, replica_digest=b"d" * 16),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_server_that_lies_costs_a_client_at_most_its_replica(order: str) -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(6)
    world = World(ef21("top-k"), PROBLEM).play(3)
    desk, store = world.network.desks[103], world.stores[3]
    before = (store.read("committed"), store.read("pending"))
    question = next(a for a in reversed(world.network.asks) if a.node == 103 and a.kind == ROUND)
    request, base = ORDERS[order](
        RoundRequest.FromString(question.parts[MESSAGE]), Base.FromString(question.parts[BASE])
    )
    try:
        answer = desk.answer(ROUND, {MESSAGE: request.SerializeToString(), BASE: base})
    except ThinwireError:
        pass  # becomes an Error reply
    else:
        assert RoundReply.FromString(answer[MESSAGE]).reason
        assert not answer[UPLINK]
    assert (store.read("committed"), store.read("pending")) == before
    assert world.play(3).digest() == undisturbed.digest()


@pytest.mark.parametrize("kind", ["", "train", "../hello", ROUND, EVALUATE, WELCOME])
@pytest.mark.parametrize("parts", [{}, {MESSAGE: b"\xff" * 40}, {MESSAGE: b"", BASE: b"\xff"}], ids=str)
def test_nonsense_is_told_from_a_question(kind: str, parts: Parts) -> None:
    world = World(ef21("top-k"), PROBLEM).play(1)
    with pytest.raises(WireError):
        world.network.desks[100].answer(kind, parts)


def test_a_personal_packet_that_is_none_leaves_the_state_alone() -> None:
    undisturbed = World(ef21("top-k"), PROBLEM).play(5)
    world = World(ef21("top-k"), PROBLEM).play(3)
    world.network.excuse = WireError
    world.network.before = lambda asked: None
    pending: Any = world.stores[1].read("pending")
    world.ledger.personal[1] = b"\xff" * 9
    world.network.mute.update({100, 102, 103, 104})
    with pytest.raises(ThinwireError, match="fewer than 1"):
        world.coordinator.round()
    committed: Any = world.stores[1].read("committed")
    assert committed.uplink == pending.uplink
    world.network.mute.clear()
    world.ledger.personal.clear()
    assert world.play(2).digest() == undisturbed.digest()


@pytest.mark.parametrize("configuration", ["", "[]", "[" * 100_000, '{"method": 5}', "\x00"])
def test_a_configuration_that_is_none_is_an_error_of_ours(configuration: str) -> None:
    with pytest.raises(ThinwireError):
        Workshop(configuration, 2, {"name": "digits"}, "cpu")


def test_a_welcome_of_other_clients_index_is_followed_only_inside_the_roster() -> None:
    world = World(ef21("top-k"), PROBLEM).play(1)
    invitation = WelcomeRequest(protocol=1, run=RUN, index=1 << 31, clients=5, configuration="{}")
    seated = dict(world.network.desks[100]._seated)
    with pytest.raises(WireError):
        world.network.desks[100].answer(WELCOME, {MESSAGE: invitation.SerializeToString()})
    assert world.network.desks[100]._seated == seated
