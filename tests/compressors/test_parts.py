"""The parts under the compressors: selection, powers of two, formats of values, options, wrapping."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from compressors_kit import DTYPES, KEY, MANY, edges, gauss, over_the_wire, same_bits

from compressors import Expectation, decode
from compressors.identity import Identity
from compressors.natural import Natural
from compressors.powers import exponent_above, from_symbols, to_symbols, to_symbols_on
from compressors.rand_k import RandK
from compressors.scaled import Scaled, contractive
from compressors.select import largest, largest_on
from compressors.top_k import TopK
from compressors.values import FORMATS, decode_values, encode_values
from thinwire.config import build
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout
from thinwire.wire.indices import unpack_indices


def by_sorting(x, keep):
    return np.sort(np.argsort(-np.abs(x), kind="stable")[:keep])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selection_is_exact_and_ties_go_to_the_lowest_index(dtype):
    smooth = gauss(200_000).astype(dtype)
    lumpy = np.round(smooth * 2).astype(dtype)
    sparse = np.where(np.arange(200_000) % 997 == 0, smooth, 0).astype(dtype)
    periodic = np.where(np.arange(200_000) % 101 == 0, smooth, smooth * 1e-3).astype(dtype)  # what the sample sees
    for x in (smooth, lumpy, sparse, periodic, np.ones(200_000, dtype), np.zeros(200_000, dtype), smooth[:999]):
        for keep in (1, len(x) // 100, len(x) // 3):
            if keep:
                expected = by_sorting(x, keep)
                assert np.array_equal(largest(x, keep), expected)
                assert np.array_equal(largest_on(torch.from_numpy(x), keep).numpy(), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_ways_to_round_to_powers_of_two_agree(dtype):
    layout = Layout.flat(70_000)
    for name, x in {**edges(layout, dtype), "gauss": torch.from_numpy(gauss(70_000)).to(dtype)}.items():
        exponent = exponent_above(float(x.abs().max()))
        symbols = to_symbols(x.numpy(), exponent, KEY)
        assert np.array_equal(to_symbols_on(x, exponent, KEY).numpy(), symbols), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_of_two_are_kept_and_others_go_to_a_neighbour(dtype):
    powers = np.ldexp(1.0, np.arange(-60, 60)).astype(dtype) * np.where(np.arange(120) % 2, 1, -1).astype(dtype)
    for key in (None, KEY):
        assert np.array_equal(from_symbols(to_symbols(powers, 60, key), 60, dtype), powers)
    x = gauss(50_000).astype(dtype)
    down = np.ldexp(1.0, np.frexp(np.abs(x))[1] - 1)
    found = np.abs(from_symbols(to_symbols(x, 3, KEY), 3, dtype))
    assert ((found == down) | (found == 2 * down)).all()
    share = np.mean((found == 2 * down) - (np.abs(x) / down - 1))
    assert abs(share) < 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_lies_below_the_last_level_is_rounded_without_bias(dtype):
    x = np.full(200_001, 2.0**-100 / 3, dtype)
    x[0] = 2.0**26  # the last level is 2^27 2^-126 = 2^-99
    found = from_symbols(to_symbols(x, 27, KEY), 27, dtype)[1:]
    assert set(np.unique(found)) == {0.0, 2.0**-99}
    assert found.mean() / (2.0**-100 / 3) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_of_every_format_come_back(form, dtype):
    for count in (0, 1, 5, 3_000):
        for key in (None, KEY):
            values = gauss(count).astype(dtype)
            parameters, stream, decoded = encode_values(values, form, key)
            found = decode_values(parameters, stream, count, dtype)
            assert found.dtype == decoded.dtype == np.dtype(dtype)
            assert found.tobytes() == decoded.tobytes()
            if form == "fp32":
                assert found.tobytes() == values.tobytes()


def test_bf16_is_rounded_to_the_nearest_even():
    values = np.random.Generator(np.random.Philox(3)).standard_normal(10_000).astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(encode_values(values, "bf16", None)[2], expected)


def test_top_k_reaches_its_targets_in_bits():
    layout, x = Layout.flat(1_000_000), torch.from_numpy(gauss(1_000_000)).float()
    assert TopK(values="fp32").encode(x, layout, KEY).payload.size * 8 / 1e6 <= 0.405
    assert TopK(values="bf16").encode(x, layout, KEY).payload.size * 8 / 1e6 <= 0.245


def test_natural_is_within_two_per_cent_of_the_entropy_of_its_symbols():
    x = gauss(1_000_000).astype(np.float32)
    counts = np.bincount(to_symbols(x, exponent_above(float(np.abs(x).max())), KEY.at("rounding")))
    share = counts[counts > 0] / counts.sum()
    bound = -(share * np.log2(share)).sum() * len(x) / 8
    assert Natural().encode(torch.from_numpy(x), Layout.flat(len(x)), KEY).payload.size <= 1.02 * bound


def test_top_k_keeps_the_largest_of_every_tensor_and_small_tensors_whole():
    x = torch.from_numpy(gauss(MANY.numel)).float()
    encoded = TopK(0.05, "fp32").encode(x, MANY, KEY)
    for entry, piece in MANY.pieces(encoded.decoded):
        kept = entry.numel if entry.numel < 256 else round(0.05 * entry.numel)
        assert int((piece != 0).sum()) == kept
    assert len(unpack_indices(encoded.payload.streams[0], 60 + 50, MANY.numel)) == 110
    assert int((TopK(0.05, "fp32", "global").encode(x, MANY, KEY).decoded != 0).sum()) == round(0.05 * MANY.numel)


def test_rand_k_sends_exactly_its_values_and_no_index():
    x = torch.from_numpy(gauss(100_000)).float()
    encoded = RandK(0.1, "fp32").encode(x, Layout.flat(100_000), KEY)
    kept = encoded.decoded != 0
    assert int(kept.sum()) == 10_000
    assert torch.allclose(encoded.decoded[kept], 10 * x[kept])
    assert encoded.payload.size <= 4 * 10_000 + 32


def test_a_shared_mask_is_the_same_for_all_clients_and_others_are_not():
    x, layout = torch.from_numpy(gauss(2_000)).float(), Layout.flat(2_000)
    for shared in (True, False):
        masks = [RandK(0.1, shared=shared).encode(x, layout, KEY.at(client=i)).decoded != 0 for i in (0, 1)]
        assert bool((masks[0] == masks[1]).all()) == shared


def test_the_mask_of_one_key_does_not_steer_the_rounding_inside_it():
    x, layout = torch.full((4_096,), 4 / 3), Layout.flat(4_096)
    total = [float(RandK(0.5, "natural").encode(x, layout, KEY.at(round=i)).decoded.sum()) for i in range(200)]
    assert np.mean(total) / (4_096 * 4 / 3) == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(
    "options",
    [{"fraction": 0.0}, {"fraction": 1.5}, {"fraction": float("nan")}, {"values": "fp8"}, {"scope": "row"}],
    ids=str,
)
@pytest.mark.parametrize("kind", [TopK, RandK])
def test_options_out_of_range_are_refused_with_what_is_allowed(kind, options):
    with pytest.raises(ValueError, match="allowed"):
        kind(**options)
    with pytest.raises(ConfigError):
        build(kind, options, "uplink")


def test_unbiased_compressors_are_scaled_for_error_feedback_and_others_left_alone():
    layout = Layout.flat(1_000)
    for compressor in (TopK(), RandK(biased=True), Identity(), Scaled(Natural())):
        assert contractive(compressor) is compressor
    for compressor in (Natural(), RandK(0.1, "fp32")):
        scaled = contractive(compressor)
        assert scaled.alpha(layout) == pytest.approx(1 / (1 + compressor.omega(layout)))
        assert scaled.alpha(layout) >= 1 - compressor.omega(layout)
        assert scaled.omega(layout) is None
    with pytest.raises(ValueError, match="allowed"):
        Scaled(TopK())


def test_a_peer_cannot_smuggle_another_codec_inside_a_scaled_one():
    layout, x = Layout.flat(600), torch.from_numpy(gauss(600)).float()
    expected = Scaled(Natural())
    encoded = expected.encode(x, layout, KEY)
    assert same_bits(over_the_wire(encoded, layout, expected), encoded.decoded)
    for other in (Scaled(RandK(0.1)).encode(x, layout, KEY).payload, Natural().encode(x, layout, KEY).payload):
        with pytest.raises(WireError, match="not allowed"):
            decode(other, Expectation(layout, torch.float32, expected.codecs), KEY)
    for codec in ("scaled", "scaled()", "scaled(scaled(natural))", "scaled(unknown)", "scaled(natural,natural)"):
        with pytest.raises(WireError):
            Scaled.decode(replace(encoded.payload, codec=codec), layout, KEY)
