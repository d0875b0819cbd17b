"""Adaptive sparsification and the linear sketches: measured constants, and what is special about each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from compressors_kit import DTYPES, KEY, MANY, gauss, over_the_wire, same_bits

from compressors import Expectation, decode
from compressors.adaptive import Adaptive
from compressors.count_sketch import CountSketch, Hashes, _sketch, _spread
from compressors.drawing import draw, draw_on, limit_of, split, split_on, with_ties
from compressors.jl import JL, _lengths
from compressors.scaled import Scaled
from compressors.scope import Part
from compressors.values import decode_values, encode_values
from thinwire.config import build
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout

SHARED = (CountSketch(0.2, "fp32", shared=True), JL(0.2, "fp32", shared=True))


def errors(compressor, x, layout, draws):
    """Relative squared errors of independent draws."""
    found = torch.stack([compressor.encode(x, layout, KEY.at(round=i)).decoded.double() for i in range(draws)])
    return ((found - x.double()) ** 2).sum(1) / (x.double() ** 2).sum()


def by_bisection(x, keep):
    """The limit of the adaptive sparsifier, found in another way (float64)."""
    low, high = 0.0, float(np.abs(x).sum())
    for _ in range(400):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, np.abs(x) / middle).sum() > keep else (low, middle)
    return high


@pytest.mark.parametrize("keep", [1, 7, 100, 900])
def test_the_limit_of_the_adaptive_sparsifier_keeps_as_many_as_asked(keep):
    heavy = gauss(1_000, 1) / np.maximum(np.abs(gauss(1_000, 2)), 1e-3)
    spike = np.where(np.arange(1_000) == 5, 1.0, 1e-4 * gauss(1_000, 3))
    wide = np.ldexp(gauss(1_000, 4), np.arange(1_000) % 200 - 100)
    for x in (gauss(1_000), heavy, spike, wide, np.ones(1_000)):
        assert limit_of(torch.from_numpy(x), keep) == pytest.approx(by_bisection(x, keep), rel=1e-9, abs=0)
        huge = limit_of(torch.from_numpy(x * 2.0**900), keep)
        assert huge == pytest.approx(by_bisection(x, keep) * 2.0**900, rel=1e-9, abs=0)
    assert limit_of(torch.from_numpy(np.eye(1, 1_000, 3)[0]), keep) == 0
    assert limit_of(torch.full((1_000,), torch.finfo(torch.float32).max), keep) <= torch.finfo(torch.float32).max


def test_a_few_entries_beside_which_the_others_vanish_travel_as_values():
    x = torch.full((1_000,), 1e-30)
    x[:3] = 1
    assert limit_of(x, 3) == 1
    assert limit_of(x[:3], 3) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_ways_to_draw_agree(dtype):
    for factor in (1.0, 2.0**-100, 2.0**100):
        x = torch.from_numpy(gauss(70_000) * factor).to(dtype)
        exponent = 90 if dtype == torch.float64 else 0
        for bound in (factor, float("inf")):
            (mass, large), (other, values) = (find(x, bound / 2.0**exponent, exponent) for find in (split, split_on))
            assert other == pytest.approx(mass, rel=1e-12, abs=0)
            assert np.array_equal(large, values)
        for limit in (2 * factor, 200 * factor):
            for found, expected in zip(draw_on(x, limit, KEY), draw(x, limit, KEY), strict=True):
                assert np.array_equal(found, expected)


def test_noise_that_ends_level_with_a_probability_is_decided_by_another_word():
    close, share = np.arange(2_000), np.full(2_000, 5.25 / 2.0**32)
    found = with_ties(np.array([7_000]), close, share, KEY, 64)
    assert found[-1] == 7_000
    assert abs(len(found) - 501) < 4 * (2_000 * 0.25 * 0.75) ** 0.5


def test_the_adaptive_sparsifier_errs_as_its_formula_says_and_less_than_rand_k():
    layout, x = Layout.flat(2_000), torch.from_numpy(gauss(2_000)).double()
    compressor = Adaptive(0.05, "fp32")
    limit = limit_of(x, 100)
    kept = torch.clamp(x.abs() / limit, max=1)
    expected = float((x**2 * (1 / kept - 1)).sum() / (x**2).sum())
    found = errors(compressor, x, layout, 300)
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / 300**0.5
    assert expected == pytest.approx(0.64 * 20 - 1, rel=0.05)
    assert compressor.omega(layout) == pytest.approx(19)


def test_large_entries_travel_as_values_and_small_ones_as_signs():
    layout, x = Layout.flat(1_000), torch.from_numpy(gauss(1_000)).float()
    x[[3, 500, 999]] = torch.tensor([50.0, -60.0, 70.0])
    encoded = Adaptive(0.05, "fp32").encode(x, layout, KEY)
    limit = torch.from_numpy(np.frombuffer(encoded.payload.streams[0], "<f4").copy())
    large = x.abs() >= limit
    assert bool(large[[3, 500, 999]].all())
    assert bool((encoded.decoded[large] == x[large]).all())
    small = encoded.decoded[~large]
    assert set(torch.unique(small.abs()).tolist()) == {0.0, float(limit)}
    assert bool((torch.sign(small)[small != 0] == torch.sign(x[~large])[small != 0]).all())
    assert 20 < int((encoded.decoded != 0).sum()) < 80
    assert len(encoded.payload.streams[3]) == -(-int((small != 0).sum()) // 8)


def test_an_adaptive_message_costs_a_sign_and_a_place_for_each_entry():
    layout, x = Layout.flat(400_000), torch.from_numpy(gauss(400_000)).float()
    encoded = Adaptive(0.01).encode(x, layout, KEY)
    assert encoded.payload.size * 8 < 9.4 * int((encoded.decoded != 0).sum())


def test_a_lying_adaptive_message_is_refused():
    layout, compressor = Layout.flat(1_000), Adaptive(0.05, "fp32")
    x = torch.from_numpy(gauss(1_000)).float()
    x[3] = 90.0
    payload = compressor.encode(x, layout, KEY).payload
    expectation = Expectation(layout, torch.float32, compressor.codecs)
    limits, values, signs, bits, rest = payload.streams
    nan, negative = (np.array([v], "<f4").tobytes() for v in (np.nan, -1.0))
    for streams in (
        (nan, values, signs, bits, rest),
        (negative, values, signs, bits, rest),
        (limits * 2, values, signs, bits, rest),
        (limits, values, signs, bits + b"\x00", rest),
        (limits, values, signs, bits[:-1] + bytes([bits[-1] | 1]), rest),
        (limits, signs, values, bits, rest),
    ):
        with pytest.raises(WireError):
            decode(replace(payload, streams=streams), expectation, KEY)
    same = payload.parameters[:5] + payload.parameters[1:5] + payload.parameters[9:]  # the same entry by both
    with pytest.raises(WireError, match="both by value and by sign"):
        decode(replace(payload, parameters=same, streams=(limits, values, values, b"\x00", rest)), expectation, KEY)


@pytest.mark.parametrize("size", [512, 500, 513, 1_000, 257])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 1.0])
def test_a_count_sketch_errs_as_stated_and_no_more_than_with_independent_hashes(size, fraction):
    layout, compressor = Layout.flat(size), CountSketch(fraction, "fp32")
    buckets = max(1, round(fraction * size))
    assert compressor.omega(layout) == -(-size // buckets) - 1 <= (size - 1) / buckets
    for x in (compressor.worst(layout), torch.from_numpy(gauss(size))):
        found = errors(compressor, x, layout, 100)
        spread = 4 * float(found.std()) / 10
        assert float(found.mean()) <= compressor.omega(layout) + spread + 1e-9
    found = errors(compressor, compressor.worst(layout), layout, 100)
    assert float(found.mean()) >= compressor.omega(layout) - 4 * float(found.std()) / 10 - 1e-9


def test_two_entries_of_a_count_sketch_meet_as_often_as_hashes_let_them():
    layout, compressor, meetings = Layout.flat(600), CountSketch(0.1, "fp32"), np.zeros(600)
    for number in range(600):
        x = torch.zeros(600)
        x[0] = 1
        meetings += (compressor.encode(x, layout, KEY.at(round=number)).decoded != 0).numpy()
    assert meetings[0] == 600
    assert meetings[1:60].max() == 0  # the stripe of the entry itself
    assert abs(meetings[60:].mean() - 10) < 1
    assert meetings[60:].max() < 10 + 6 * 10**0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_and_tensors_are_sketched_to_the_same_bits(dtype):
    x = torch.from_numpy(gauss(50_000)).to(dtype)
    for keep in (1, 30, 20_000, 50_000):
        part = Part(0, 50_000, keep, 0)
        here, there = Hashes(part, KEY, None), Hashes(part, KEY, torch.device("cpu"))
        sketch = _sketch(x, here)
        assert same_bits(_sketch(x, there), sketch)
        assert same_bits(_spread(sketch, here), _spread(sketch, there))


@pytest.mark.parametrize("size", [256, 4_096, 5_000, 300])
def test_a_jl_sketch_errs_as_stated_whatever_the_vector(size):
    layout, compressor = Layout.flat(size), JL(0.1, "fp32")
    spike = torch.zeros(size).double()
    spike[7] = 1
    for x in (spike, torch.from_numpy(gauss(size)), torch.ones(size).double()):
        found = errors(compressor, x, layout, 100)
        assert float(found.mean()) <= compressor.omega(layout) + 4 * float(found.std()) / 10
        assert float(found.mean()) >= 0.8 * (compressor.omega(layout) - 1) - 4 * float(found.std()) / 10
    assert compressor.omega(layout) <= 9


def test_values_of_a_jl_sketch_suit_few_bits_whatever_the_vector():
    layout, spike = Layout.flat(4_096), torch.zeros(4_096)
    spike[100] = 3.0
    payload = JL(0.5, "fp32").encode(spike, layout, KEY).payload
    kept = decode_values(payload.parameters[-3:], payload.streams[0], 2_048, "float32")
    assert 2 < float((kept**4).mean() / (kept**2).mean() ** 2) < 4.5  # 3 for a Gaussian
    plain, few = (float(errors(JL(0.5, values), spike, layout, 40).mean()) for values in ("fp32", "4-bit"))
    assert few < plain + 0.12


@pytest.mark.parametrize("compressor", SHARED, ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_sum_of_sketches_is_the_sketch_of_the_sum(compressor, dtype):
    vectors = [torch.from_numpy(gauss(MANY.numel, seed)).to(dtype) for seed in (1, 2, 3)]
    payloads = [compressor.encode(x, MANY, KEY.at(client=i)).payload for i, x in enumerate(vectors)]
    cut = len(payloads[0].parameters) - 3
    kept = sum(_lengths(MANY, 0.2)) if compressor.name == "jl" else round(0.2 * 1_200) + round(0.2 * 999) + 31
    values = [decode_values(p.parameters[cut:], p.streams[0], kept, p.dtype) for p in payloads]
    description, stream, _ = encode_values(values[0] + values[1] + values[2], "fp32", None)
    merged = replace(payloads[0], parameters=payloads[0].parameters[:cut] + description, streams=(stream,))
    found = decode(merged, Expectation(MANY, dtype, compressor.codecs), KEY.at(client=77))
    expected = compressor.encode(vectors[0] + vectors[1] + vectors[2], MANY, KEY.at(client=5)).decoded
    assert torch.allclose(found, expected, rtol=0, atol=30 * torch.finfo(dtype).eps * float(expected.abs().max()))


def test_who_is_linear_says_so():
    for compressor in SHARED:
        assert compressor.linear
        assert Scaled(compressor).linear
        assert not compressor.independent
        assert not replace(compressor, values="bf16").linear
        assert not replace(compressor, shared=False).linear
        assert replace(compressor, shared=False).independent
    assert not Adaptive().linear


@pytest.mark.parametrize("compressor", [*SHARED, Adaptive(0.1)], ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sketches_of_extreme_vectors_keep_their_small_entries(compressor, dtype):
    layout, least = Layout.flat(1_000), torch.finfo(dtype).smallest_normal
    x = torch.from_numpy(gauss(1_000)).to(dtype)
    expected = compressor.encode(x, layout, KEY).decoded
    for factor in (least * 64, 2.0**100 if dtype == torch.float32 else 2.0**1_000):
        encoded = compressor.encode(x * factor, layout, KEY)
        assert same_bits(over_the_wire(encoded, layout, compressor), encoded.decoded)
        assert torch.allclose(encoded.decoded / factor, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kind, options)
        for kind in (Adaptive, CountSketch, JL)
        for options in ({"fraction": 0.0}, {"fraction": 1.1}, {"values": "fp8"})
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_with_what_is_allowed(kind, options):
    with pytest.raises(ValueError, match="allowed"):
        kind(**options)
    with pytest.raises(ConfigError):
        build(kind, options, "uplink")
