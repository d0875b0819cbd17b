"""What is dropped is measured where it is dropped, of every method, and nothing else changes by it."""

from dataclasses import replace

import pytest
import strategies_kit as kit
import torch

from compressors import NonFinite, Payload, find
from strategies.base import Federation, Round
from strategies.compression_error import SAMPLE, CompressionError, squares
from thinwire import state
from thinwire.layout import Layout
from thinwire.wire.packet import pack, unpack

FORMS = sorted(kit.forms())
FEDERATION = kit.federation_of(640, torch.float64)


def a_vector(numel, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(numel, generator=draw) * torch.rand(numel, generator=draw) ** 4


def watched(compressor, vector, name="update"):
    watch = CompressionError()
    encoded = Round(1, Federation(Layout.flat(len(vector)), 1), 0, watch=watch).encode(name, compressor, vector)
    return watch, encoded


@pytest.mark.parametrize("compressor", [find("top-k")(fraction=0.1), find("natural")(), find("qsgd")()], ids=str)
def test_the_error_is_the_squared_distance_over_the_squared_norm(compressor):
    vector = a_vector(5000)
    watch, encoded = watched(compressor, vector)
    exact, decoded = vector.double(), encoded.decoded.double()
    expected = float((decoded - exact).square().sum() / exact.square().sum())
    assert 0 < expected < 1
    assert watch.of(["update"]) == pytest.approx(expected, rel=1e-5)  # a sum of 5,000 squares in float32
    assert watch.seconds > 0


def test_what_travels_as_it_is_has_no_error():
    watch, _ = watched(find("identity")(), a_vector(100))
    assert watch.of(["update"]) == 0.0


def test_a_message_of_nothing_has_no_error_to_speak_of():
    watch, _ = watched(find("top-k")(), torch.zeros(100))
    assert watch.of(["update"]) is None
    assert watch.of(["another"]) is None


def test_payloads_that_are_not_sent_do_not_count_and_those_that_are_count_together():
    watch = CompressionError()
    here = Round(1, Federation(Layout.flat(1000), 1), 0, watch=watch)
    pairs = {}
    for number, name in enumerate(("first", "second", "candidate")):
        vector = a_vector(1000, number)
        pairs[name] = squares(vector, here.encode(name, find("top-k")(), vector).decoded)
    here.encode("whole", find("identity")(), a_vector(1000))
    errors, norms = zip(pairs["first"], pairs["second"], strict=True)
    assert watch.of(["first", "second", "whole"]) == pytest.approx(sum(errors) / sum(norms), rel=1e-12)


@pytest.mark.parametrize("numel", [SAMPLE + 1, 300_001, 2_000_000])
def test_a_sample_of_a_long_vector_tells_its_error_and_another_start_looks_elsewhere(numel):
    vector = a_vector(numel)
    decoded = torch.where(vector.abs() > 0.5, vector, 0)
    error, norm = (decoded - vector).double().square().sum(), vector.double().square().sum()
    found = [float(pair[0] / pair[1]) for pair in (squares(vector, decoded, start) for start in range(8))]
    # Each looks at 16,384 entries or more: the sums of squares of such entries stray by about 2 per cent.
    assert found == pytest.approx([float(error / norm)] * 8, rel=0.15)
    assert sum(found) / 8 == pytest.approx(float(error / norm), rel=0.05)
    assert len(set(found)) == min(8, max(1, numel // SAMPLE))


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18])
def test_vectors_whose_squares_float32_cannot_hold_have_the_same_error(scale):
    ordinary, _ = watched(find("top-k")(values="fp32"), a_vector(5000))
    extreme, _ = watched(find("top-k")(values="fp32"), a_vector(5000) * scale)
    assert extreme.of(["update"]) == pytest.approx(ordinary.of(["update"]), rel=1e-5)


def test_a_vector_that_cannot_be_compressed_is_refused_as_ever():
    with pytest.raises(NonFinite, match="non-finite"):
        watched(find("top-k")(), torch.full((8,), torch.nan))


@pytest.mark.parametrize("label", FORMS)
def test_every_payload_of_every_method_is_watched_both_ways_and_no_bit_is_changed(label):
    method = kit.forms()[label]
    nodes = kit.Nodes.start(method, FEDERATION)
    dense = {name for name, compressor in method.uplink.items() if compressor.name == "identity"}
    for number in (1, 2, 3):
        up, here = CompressionError(number), kit.on_client(FEDERATION, number, 1)
        oracle = kit.Pull(torch.ones(640, dtype=torch.float64))
        replica, private = nodes.replicas[2], nodes.privates[1]
        _, plain = method.respond(replica, private, oracle, here)
        _, uplink = method.respond(replica, private, oracle, replace(here, watch=up))
        assert pack(uplink) == pack(plain)
        errors = {name: up.of([name]) for name in uplink}
        assert None not in errors.values()
        assert all((error == 0) == (name in dense) for name, error in errors.items() if "top-k" in label)

        replica, server = state.load(state.dump((nodes.replicas[0], nodes.server)))  # a step may use up its state
        played, down = nodes.play(number), CompressionError(number)
        uplinks = ((client, unpack(data, Payload, kit.LIMIT_BYTES)) for client, data in played.uplinks)
        there = Round(number, FEDERATION, asked=kit.cohort(number), watch=down)
        _, downlink = method.step(replica, server, uplinks, there)
        assert pack(downlink.broadcast) == played.downlink
        assert down.of(downlink.broadcast) is not None or not downlink.broadcast
