import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import strategies_kit as kit
import torch

from compressors import Payload
from strategies.base import Round
from strategies.registry import method_names
from thinwire import state
from thinwire.errors import WireError
from thinwire.wire.packet import pack, unpack

FORMS = sorted(kit.forms())
FEDERATION = kit.federation_of(640, torch.float64)


def test_every_method_is_built_by_its_name_alone():
    assert {"ef14", "ef21", "fedavg"} <= set(method_names())
    assert {label.split()[0] for label in FORMS} == set(method_names())


@pytest.mark.parametrize("label", FORMS)
def test_mirrors_and_replicas_stay_equal_bit_for_bit(label):
    nodes = kit.Nodes.start(kit.forms()[label], FEDERATION)
    for number in range(1, 7):
        nodes.play(number)
        assert len({state.digest(replica) for replica in nodes.replicas}) == 1
        for private, mirror in zip(nodes.privates, nodes.mirrors, strict=True):
            assert state.same(nodes.method.mirror(private), mirror)
        assert (nodes.mirrors[0] is not None) == nodes.method.mirrored


@pytest.mark.parametrize("label", FORMS)
def test_a_run_goes_on_from_saved_states_as_if_never_stopped(label):
    nodes = kit.Nodes.start(kit.forms()[label], FEDERATION)
    for number in (1, 2, 3):
        nodes.play(number)
    saved = (tuple(nodes.replicas), nodes.server, tuple(nodes.privates), tuple(nodes.mirrors))
    loaded = state.load(state.dump(saved))
    assert state.same(saved, loaded)
    again = kit.Nodes(nodes.method, FEDERATION, list(loaded[0]), loaded[1], list(loaded[2]), list(loaded[3]))
    for number in (4, 5):
        assert nodes.play(number) == again.play(number)
    assert state.same(nodes.server, again.server)
    assert state.same(nodes.replicas[0], again.replicas[0])


@pytest.mark.parametrize("label", FORMS)
def test_respond_is_repeatable_and_leaves_its_states_alone(label):
    method = kit.forms()[label]
    nodes = kit.Nodes.start(method, FEDERATION)
    for number in (1, 2):
        nodes.play(number)
    here, oracle = kit.on_client(FEDERATION, 3, 1), kit.Pull(torch.ones(640, dtype=torch.float64))
    before = state.digest((nodes.replicas[2], nodes.privates[1]))
    first, uplink = method.respond(nodes.replicas[2], nodes.privates[1], oracle, here)
    second, resent = method.respond(nodes.replicas[2], nodes.privates[1], oracle, here)
    assert state.digest((nodes.replicas[2], nodes.privates[1])) == before
    assert pack(uplink) == pack(resent)
    assert state.same(first, second)


@pytest.mark.parametrize("label", FORMS)
def test_what_is_derived_from_the_mirrors_can_be_rebuilt(label):
    nodes = kit.Nodes.start(kit.forms()[label], FEDERATION)
    for number in (1, 2, 3):
        nodes.play(number)
    mirrors = [mirror for mirror in nodes.mirrors if mirror is not None]
    rebuilt = replace_server(nodes, nodes.method.rebuild(nodes.server, mirrors, FEDERATION))
    nodes.play(4)
    rebuilt.play(4)
    difference = nodes.method.model(nodes.replicas[0], nodes.server) - rebuilt.method.model(
        rebuilt.replicas[0], rebuilt.server
    )
    assert difference.abs().max() < 1e-12  # sums of other orders, float64


def replace_server(nodes, server):
    return replace(
        nodes,
        replicas=list(nodes.replicas),
        privates=list(nodes.privates),
        mirrors=list(nodes.mirrors),
        server=state.load(state.dump(server)),
    )


@pytest.mark.parametrize("label", FORMS)
def test_a_restored_client_has_its_mirror_and_a_new_one_starts_anew(label):
    method = kit.forms()[label]
    nodes = kit.Nodes.start(method, FEDERATION)
    fresh = state.digest(method.mirror(nodes.privates[0])) if method.mirrored else b""
    for number in (1, 2):
        nodes.play(number)
    if not method.mirrored:
        assert method.mirror(nodes.privates[0]) is None
        return
    restored = method.join(nodes.replicas[1], nodes.mirrors[0])
    assert state.same(method.mirror(restored), nodes.mirrors[0])
    assert method.mirror(restored) is not nodes.mirrors[0]
    assert state.digest(nodes.mirrors[0]) != fresh


@pytest.mark.parametrize("label", FORMS)
def test_a_memoryless_downlink_gives_the_replica_whatever_was_held(label):
    method = kit.forms()[label]
    nodes = kit.Nodes.start(method, FEDERATION)
    initial = state.load(state.dump(nodes.replicas[0]))
    nodes.play(1)
    last = nodes.play(2)
    packet = unpack(last.downlink, Payload, kit.LIMIT_BYTES)
    try:
        jumped = method.apply(initial, packet, Round(2, FEDERATION))
    except WireError:  # what was held is in another phase, and knows it
        jumped = initial
    assert state.same(jumped, nodes.replicas[0]) == method.memoryless_downlink


@pytest.mark.parametrize("label", FORMS)
def test_hostile_uplinks_are_wire_errors(label):
    method = kit.forms()[label]
    nodes = kit.Nodes.start(method, FEDERATION)
    client, data = nodes.play(1).uplinks[0]
    here = kit.on_client(FEDERATION, 1, client)
    good = unpack(data, Payload, kit.LIMIT_BYTES)
    name = next(iter(good))
    payload = good[name]
    method.validate(good, here)
    other = "top-k" if payload.codec == "identity" else "identity"
    required = set(method.uplink) - method.optional  # none where the round decides which payload there is
    hostile = [
        {**good, "surprise": payload},
        {key: value for key, value in good.items() if key in method.optional} if required else {},
        {**good, name: replace(payload, codec=other)},
        {**good, name: replace(payload, dtype="float32")},
        {**good, name: replace(payload, streams=())},
        {**good, name: replace(payload, streams=(b"\xff" * 100_000, *payload.streams[1:]))},
    ]
    for packet in hostile:
        with pytest.raises(WireError):
            method.validate(packet, here)


def test_apply_and_advance_give_the_same_bits_on_every_instruction_set_and_thread_count(tmp_path):
    federation = kit.federation_of(kit.NUMEL_OF_REPLAY, torch.float32)
    recorded, wanted = [], []
    for label in FORMS:
        nodes = kit.Nodes.start(kit.forms()[label], federation)
        rounds = tuple(nodes.play(number) for number in (1, 2, 3))
        wanted.append(f"{label} {b''.join(kit.replay(nodes.method, federation, rounds)).hex()}")
        assert wanted[-1].endswith(state.digest((nodes.replicas[0], tuple(nodes.mirrors))).hex())
        recorded.append((label, tuple((r.number, r.uplinks, r.downlink) for r in rounds)))
    file = tmp_path / "recorded"
    file.write_bytes(state.dump(tuple(recorded)))
    for capability, threads in itertools.product(("default", "avx2", "avx512"), (1, 2)):
        done = subprocess.run(
            [sys.executable, str(Path(kit.__file__)), str(file), str(threads)],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(Path(kit.__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines() == wanted, f"{capability} with {threads} threads"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("label", FORMS)
def test_clients_on_a_gpu_keep_the_bits_of_a_server_on_the_cpu(label):
    nodes = kit.Nodes.start(kit.forms()[label], kit.federation_of(kit.NUMEL_OF_REPLAY, torch.float32))
    nodes.replicas[1:] = [state.to(replica, "cuda") for replica in nodes.replicas[1:]]
    nodes.privates = [nodes.method.join(replica) for replica in nodes.replicas[1:]]
    for number in range(1, 5):
        nodes.play(number)
        assert len({state.digest(replica) for replica in nodes.replicas}) == 1
        for private, mirror in zip(nodes.privates, nodes.mirrors, strict=True):
            own = nodes.method.mirror(private)
            assert state.same(own, mirror)
            assert own is None or (own.is_cuda and not mirror.is_cuda)
