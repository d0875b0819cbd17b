"""The quantisers: their levels, scales and constants, the bytes of their symbols, and mistakes that others made."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from compressors_kit import DTYPES, KEY, MANY, edges, gauss, over_the_wire, same_bits, with_stream

from compressors.biased_rounding import BiasedRounding
from compressors.blockwise_8bit import Blockwise8Bit, _magnitudes
from compressors.bounds import entropy_bits
from compressors.buckets import EXCESS, STRETCH, largest, means, norms, round_up, spread
from compressors.buckets import edges as bounds_of
from compressors.cast import Cast
from compressors.codebook import Places, rounding, worst_of_bucket
from compressors.dithering import Dithering
from compressors.exponential import Exponential
from compressors.geometric import LEAST_BASE, magnitudes, power
from compressors.natural_dithering import NaturalDithering
from compressors.powers import exponent_above, from_symbols, to_symbols
from compressors.qsgd import QSGD
from compressors.quantised import at_once, at_random, by_stretch, quantise
from compressors.scaled import contractive
from compressors.sign import Sign
from compressors.symbols import level_type, pack_digits, pack_levels, per_byte, unpack_digits, unpack_levels
from compressors.ternary import Ternary
from compressors.values import encode_values
from thinwire.config import build
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Entry, Layout
from thinwire.wire.coding import pack_symbols

FLAT = Layout.flat(200_000)
DEFAULTS = (
    QSGD(),
    Dithering(),
    NaturalDithering(),
    Exponential(),
    BiasedRounding(),
    Ternary(),
    Blockwise8Bit(),
    Sign(),
    Cast(),
    Cast("fp16"),
)


def relative_error(compressor, x, layout, key=KEY):
    found = compressor.encode(x, layout, key).decoded.double()
    return float(((found - x.double()) ** 2).sum() / (x.double() ** 2).sum())


def heavy(count, seed=0):
    """Student-t(3) noise times a log-normal scale per 4,096 entries (float32)."""
    random = np.random.Generator(np.random.Philox(seed))
    scales = np.exp(random.standard_normal(-(-count // 4_096)))
    return torch.from_numpy(random.standard_t(3, count) * np.repeat(scales, 4_096)[:count]).float()


# Constants


@pytest.mark.parametrize(
    ("levels", "bits"), [(1, 0.06), (4, 0.20), (16, 0.57), (64, 1.41), (128, 2.16), (256, 3.08)], ids=str
)
def test_qsgd_has_the_entropy_that_theory_gives_for_a_gaussian_and_sends_no_more(levels, bits):
    layout, x = Layout.flat(16_384), torch.from_numpy(gauss(16_384)).float()
    unit, found = float(x.double().norm()) / levels, []
    for round_ in range(8):
        encoded = QSGD(levels, bucket=16_384).encode(x, layout, KEY.at(round=round_))
        multiples = (encoded.decoded / unit).round().numpy()
        assert np.abs(encoded.decoded.numpy() / unit - multiples).max() <= EXCESS * np.abs(multiples).max()
        found.append(entropy_bits(multiples) / layout.numel)
        assert 8 * encoded.payload.size <= 1.02 * found[-1] * layout.numel + 8 * 64
    assert np.mean(found) == pytest.approx(bits, abs=0.015)  # theory was printed to two digits


def test_terngrad_costs_a_gaussian_far_less_than_its_worst_vector():
    layout, x = Layout.flat(16_384), torch.from_numpy(gauss(16_384)).float()
    found = np.mean([relative_error(Dithering(1, 16_384), x, layout, KEY.at(round=i)) for i in range(20)])
    expected = float(x.abs().max()) * float(x.abs().sum()) / float((x**2).sum()) - 1  # of an unrounded scale
    assert expected - 0.02 <= found <= (1 + EXCESS) * (expected + 1) - 1 + 0.02  # 20 draws of 16,384 entries
    assert found < Dithering(1, 16_384).omega(layout) / 20  # the bound is for one large entry among small ones


@pytest.mark.parametrize("kind", [QSGD, Dithering])
def test_no_vector_of_a_search_errs_more_than_omega_says(kind):
    for levels in (1, 2, 3, 8):
        for d in (8, 64, 512):
            omega = kind(levels, d).omega(Layout.flat(d))
            for share in (0.0, 0.1, 0.5, 1 / (1 + math.sqrt(d)), 1.0):
                x = np.full(d, share)
                x[0] = 1.0
                scale = np.linalg.norm(x) if kind is QSGD else 1.0
                unit = (1 + EXCESS) * scale / levels
                part = x / unit - np.floor(x / unit)
                assert (part * (1 - part) * unit**2).sum() <= omega * (x**2).sum() * (1 + 1e-12)


@pytest.mark.parametrize("nearest", [True, False])
def test_no_block_errs_more_than_the_worst_one(nearest):
    ladder, d = np.concatenate([[0.0], _magnitudes("float64")]), 2_048
    worst, _, _ = worst_of_bucket(ladder[1:], d, EXCESS, nearest)

    def error(y):
        place = np.clip(np.searchsorted(ladder, y, "right") - 1, 0, len(ladder) - 2)
        down, up = y - ladder[place], ladder[place + 1] - y
        return np.minimum(down, up) ** 2 if nearest else down * up

    rest, top = np.geomspace(1e-7, 1, 20_001)[:, None], np.linspace(1 / (1 + EXCESS), 1, 101)
    ratios = ((d - 1) * error(rest) + error(top)) / ((d - 1) * rest**2 + top**2)
    assert ratios.max() <= worst
    assert ratios.max() == pytest.approx(worst, rel=5e-3)  # as fine as the grid


@pytest.mark.parametrize("bucket", [8, 100, 512])
def test_ternary_finds_the_threshold_of_least_error(bucket):
    x = torch.cat([heavy(3_000), torch.ones(100), torch.zeros(64), torch.tensor([5.0])])
    layout = Layout.flat(len(x))
    decoded = Ternary(bucket).encode(x, layout, KEY).decoded.double().numpy()
    for start in range(0, len(x), bucket):
        piece = x[start : start + bucket].double().numpy()
        descending = np.sort(np.abs(piece))[::-1]
        gains = np.cumsum(descending) ** 2 / np.arange(1, len(piece) + 1)
        error, energy = ((decoded[start : start + bucket] - piece) ** 2).sum(), (piece**2).sum()
        assert error <= energy - gains.max() * (1 - 2.0**-16) + 1e-12 * energy
        assert error >= energy - gains.max() - 1e-12 * energy


def test_ternary_keeps_a_share_that_hardly_depends_on_the_size():
    for d in (8, 512, 32_768):
        assert Ternary(d).alpha(Layout.flat(d)) == pytest.approx(1 / (1 + math.log(d) / 4), rel=0.07)
        assert Sign().alpha(Layout.flat(d)) == 1 / d


def test_sign_keeps_two_over_pi_of_a_gaussian():
    x = torch.from_numpy(gauss(200_000)).float()
    assert relative_error(Sign(), x, FLAT) == pytest.approx(1 - 2 / math.pi, abs=0.005)


# Heavy tails, and tensors beside each other


@pytest.mark.parametrize(
    ("compressor", "bar"),
    [
        (QSGD(), 1e-2),
        (Dithering(), 1e-2),
        (Blockwise8Bit(), 1e-3),
        (Blockwise8Bit(unbiased=True), 2e-3),
        (Exponential(), 1e-2),
        (BiasedRounding(), 2e-2),
        (Cast(), 1e-5),
        (Cast("fp16"), 1e-6),
    ],
    ids=str,
)
def test_defaults_hold_for_heavy_tails(compressor, bar):
    assert relative_error(compressor, heavy(FLAT.numel), FLAT) < bar


@pytest.mark.parametrize("compressor", [*DEFAULTS, Blockwise8Bit(unbiased=True)], ids=str)
def test_a_bias_next_to_a_weight_does_not_share_its_scale(compressor):
    layout = Layout((Entry("weight", (50, 40)), Entry("bias", (40,)), Entry("gain", ())))
    x = torch.from_numpy(gauss(layout.numel)).float()
    x[2_000:] *= 1e-6
    found = compressor.encode(x, layout, KEY).decoded
    alone = compressor.encode(x[2_000:], Layout(layout.entries[1:]), KEY).decoded
    errors = [float(((y - x[2_000:]) ** 2).sum() / (x[2_000:] ** 2).sum()) for y in (found[2_000:], alone)]
    assert errors[0] < 2 * errors[1] + 0.02  # another draw of the rounding noise at most


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bucket", [8, 100, STRETCH, 1 << 20])
def test_buckets_are_measured_alike_however_long_they_are(bucket, dtype):
    layout = Layout((Entry("a", (70_000,)), Entry("b", (33,)), Entry("c", (0, 4)), Entry("d", ())))
    x = torch.from_numpy(gauss(layout.numel)).to(dtype)
    starts = bounds_of(layout, bucket)
    for name, of in (("largest", np.max), ("norm", np.linalg.norm), ("mean", np.mean)):
        found = {"largest": largest, "norm": norms, "mean": means}[name](x, layout, bucket)
        pieces = [np.abs(x[a:b].double().numpy()) for a, b in pairwise(starts)]
        exact = 1e-6 if name == "mean" and dtype == torch.float32 else 1e-14  # float32 sums: 15 roundings of 2^-24
        assert found == pytest.approx([of(piece) for piece in pieces], rel=exact)
    assert all(bool((starts == edge).any()) for edge in (0, 70_000, 70_033, 70_034))
    assert np.diff(starts).max() <= bucket


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scales_are_rounded_up_by_at_most_their_excess_and_travel_as_they_are(dtype):
    name, info = str(dtype).removeprefix("torch."), torch.finfo(dtype)
    for lift in (1.0, info.smallest_normal, info.max / 4):
        scales = np.abs(gauss(2_000)) * lift
        for parts in (1, 7, 127):
            units = round_up(scales, parts, name)
            assert units.dtype.name == name
            assert (units.astype(np.float64) * parts >= scales * (1 - 1e-15)).all()
            coarse = np.maximum(EXCESS * scales / parts, info.smallest_normal * info.eps)
            assert (units - scales / parts <= coarse * (1 + 1e-9)).all()
            assert np.array_equal(encode_values(units, "bf16", None)[2], units)
    wide = round_up(np.array([1.0, 2.0**-400, 0.0]), 1, name)
    assert 0 < wide[1] <= 2.0**-100
    assert wide[2] == 0
    assert np.array_equal(encode_values(wide, "bf16", None)[2], wide)


@pytest.mark.parametrize("compressor", [QSGD(1, 8), Dithering(1, 8), NaturalDithering(3), Blockwise8Bit(8)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_numbers_are_decoded_to_finite_ones(compressor, dtype):
    x = torch.full((64,), torch.finfo(dtype).max, dtype=dtype)
    decoded = compressor.encode(x, Layout.flat(64), KEY).decoded
    assert bool(torch.isfinite(decoded).all())
    assert float(decoded.max()) > 0.99 * torch.finfo(dtype).max


# Levels


def test_natural_dithering_rounds_what_others_return_as_it_was():
    x = heavy(20_000)
    for norm in ("l2", "linf"):
        encoded = NaturalDithering(8, norm, 512).encode(x, Layout.flat(20_000), KEY)
        assert not same_bits(encoded.decoded, x)
        for start in range(0, 20_000, 512):
            piece, decoded = x[start : start + 512].double(), encoded.decoded[start : start + 512].double().abs()
            scale = float(piece.norm() if norm == "l2" else piece.abs().max())
            kept = decoded[decoded > 0] / scale
            powers = torch.exp2(torch.round(torch.log2(kept)))
            assert bool((kept / powers >= 1 - 1e-6).all())
            assert bool((kept / powers <= 1 + EXCESS + 1e-6).all())
            assert 2.0**-7 <= float(powers.min()) <= float(powers.max()) <= 1


def test_powers_of_the_base_are_kept_and_others_go_to_a_neighbour():
    for base in (1.3, 2.0, 3.0, 10.0):
        exact = torch.from_numpy(power(base, np.arange(-15, 16)) * np.where(np.arange(31) % 2, 1, -1))
        for compressor in (Exponential(base), BiasedRounding(base)):
            assert same_bits(compressor.encode(exact, Layout.flat(31), KEY).decoded, exact)
    x = torch.from_numpy(gauss(20_000))
    down = torch.from_numpy(power(3.0, np.floor(np.log(np.abs(x.numpy())) / np.log(3.0)).astype(np.int64)))
    for compressor in (Exponential(3.0), BiasedRounding(3.0)):
        found = compressor.encode(x, Layout.flat(20_000), KEY).decoded
        assert bool(((found.abs() / down - 1).abs() < 1e-12).logical_or((found.abs() / down - 3).abs() < 1e-12).all())
        assert bool((torch.sign(found) == torch.sign(x)).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_biased_rounding_to_powers_of_two_is_that_of_natural_compression(dtype):
    for name, x in {**edges(MANY, dtype), "gauss": torch.from_numpy(gauss(MANY.numel)).to(dtype)}.items():
        exponent = exponent_above(float(x.abs().max()))
        expected = from_symbols(to_symbols(x.numpy(), exponent, None), exponent, str(dtype).removeprefix("torch."))
        found = BiasedRounding(2.0).encode(x, MANY, KEY).decoded
        assert torch.equal(found, torch.from_numpy(expected)), name


def test_powers_are_right_and_cover_126_octaves():
    for base in (LEAST_BASE, 1.5, 2.0, 256.0):
        exponents = np.array([-300, -7, -1, 0, 1, 5, 300])
        with np.errstate(over="ignore"):
            assert power(base, exponents) == pytest.approx(np.float64(base) ** exponents, rel=1e-12)
        ladder = magnitudes(base, 3, "float64")
        assert (np.diff(ladder) > 0).all()
        assert ladder[-1] == pytest.approx(base**3)
        assert ladder[-1] / ladder[0] == pytest.approx(2.0**126, rel=base - 1)


def test_the_levels_of_a_block_are_those_of_eight_bit_optimisers():
    found = _magnitudes("float64")
    assert len(found) == 127
    assert found[-1] == 1
    assert found[62:126] == pytest.approx(np.linspace(0.1, 1, 65)[:-1] + 0.9 / 128)
    assert found[30:62] == pytest.approx((np.linspace(0.1, 1, 33)[:-1] + 0.9 / 64) / 10)
    assert found[0] == pytest.approx(3.25e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_places_among_thresholds_are_those_of_a_search(dtype):
    thresholds = np.unique(np.abs(gauss(100)) ** 5).astype(str(dtype).removeprefix("torch."))
    x = np.concatenate([np.abs(gauss(5_000)) ** 5, thresholds, np.nextafter(thresholds, 0), [0, 1e-38, 1e38]])
    magnitudes_ = torch.from_numpy(x).to(dtype)
    found = Places(thresholds, torch.device("cpu")).of(magnitudes_)
    assert np.array_equal(found.numpy(), np.searchsorted(thresholds, magnitudes_.numpy(), "right"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nearest", [True, False, None], ids=["nearest", "random", "whole"])
def test_a_device_that_takes_all_entries_at_once_finds_the_same_levels(dtype, nearest):
    layout = Layout((Entry("a", (150_000,)), Entry("b", (77,))))
    x = torch.from_numpy(gauss(layout.numel)).to(dtype)
    bounds, name = bounds_of(layout, 512), str(dtype).removeprefix("torch.")
    units = round_up(largest(x, layout, 512), 1, name)
    work = at_random(63) if nearest is None else rounding(_magnitudes(name), x.device, nearest)
    key = None if nearest else KEY
    each = spread(torch.from_numpy(units), bounds, 0, len(x))
    expected = at_once(x, torch.int8, lambda part, start, noise: work(part / each, noise), key)
    assert torch.equal(quantise(x, bounds, units, torch.int8, work, key), expected)
    doubled = by_stretch(x, dtype, lambda part, start, noise: part * 2)
    assert torch.equal(doubled, x * 2)


@pytest.mark.parametrize(("form", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_cast_is_that_of_the_hardware_and_tensors_out_of_its_range_are_kept(form, kind):
    x = torch.from_numpy(gauss(50_000)).float()
    x = x[x.abs() > 2.0**-13]  # normal numbers of fp16; ours reach further
    assert torch.equal(Cast(form).encode(x, Layout.flat(len(x)), KEY).decoded, x.to(kind).float())
    layout = Layout((Entry("huge", (300,)), Entry("small", (300,)), Entry("tiny", (300,))))
    y = torch.from_numpy(gauss(900)).double()
    lift = torch.tensor([1e30, 1e-6, 1e-30], dtype=torch.float64).repeat_interleave(300)
    for x in (y * lift, (y * lift).float()):
        found = Cast(form).encode(x, layout, KEY).decoded
        assert float(((found - x) / x).abs().max()) <= 2.0 ** (-8 if form == "bf16" else -11)


# Bytes


@pytest.mark.parametrize(
    "compressor",
    [
        *DEFAULTS,
        QSGD(1, 256),
        QSGD(7),
        QSGD(1_000),
        Dithering(1),
        Dithering(7),
        BiasedRounding(1.02),
        Blockwise8Bit(256),
    ],
    ids=str,
)
@pytest.mark.parametrize("x", [torch.from_numpy(gauss(FLAT.numel)).float(), heavy(FLAT.numel)], ids=["gauss", "heavy"])
def test_bytes_are_within_two_per_cent_of_the_entropy_of_levels_and_scales(compressor, x):
    encoded = compressor.encode(x, FLAT, KEY)
    assert 8 * encoded.payload.size <= 1.02 * compressor.least_bits(encoded, FLAT)


def test_a_sign_is_a_bit_and_not_a_byte():
    x = torch.from_numpy(gauss(100_000)).float()
    assert Sign().encode(x, Layout.flat(100_000), KEY).payload.size <= 100_000 / 8 + 16
    many = Layout(tuple(Entry(str(i), (500,)) for i in range(200)))
    assert Sign().encode(x, many, KEY).payload.size <= 100_000 / 8 + 200 * 4 + 16


def test_fifteen_levels_are_no_integers_of_thirty_two_bits():
    x = torch.from_numpy(gauss(200_000)).float()
    assert 8 * Dithering(7, 512).encode(x, FLAT, KEY).payload.size <= 3.4 * 200_000
    assert 8 * QSGD(7, 512).encode(x, FLAT, KEY).payload.size <= 1.1 * 200_000


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7, 8, 127, 128, 300, 32_767])
def test_levels_of_any_size_come_back(most):
    random = np.random.Generator(np.random.Philox(most))
    for count in (0, 1, 2, 7, 1_000, 30_000):
        for spread_ in (0, min(1, most), min(100, most), most):
            levels = torch.from_numpy(random.integers(-spread_, spread_ + 1, count)).to(level_type(most))
            data = pack_levels(levels, most)
            assert np.array_equal(unpack_levels(data, count, most), levels.numpy())
            for wrong in (data + b"\x00", data[:-1], b"\xff" + data[1:]) if count else (b"\x00",):
                with pytest.raises(WireError):
                    unpack_levels(wrong, count, most)


@pytest.mark.parametrize(("radix", "group"), [(2, 8), (3, 5), (5, 3), (7, 2), (15, 2), (17, 1)])
def test_a_byte_holds_as_many_digits_as_fit_and_nothing_else(radix, group):
    assert per_byte(radix) == group
    digits = torch.from_numpy(np.random.Generator(np.random.Philox(1)).integers(0, radix, 1_001)).to(torch.uint8)
    for count in range(1, group + 1):
        data = pack_digits(digits, radix, count)
        assert np.array_equal(unpack_digits(data, 1_001, radix), digits.numpy())
    largest_byte, size = radix**group - 1, -(-1_001 // group)
    for at, value, wrong in ((0, largest_byte + 1, largest_byte < 255), (-1, largest_byte, group * size > 1_001)):
        if wrong:  # a digit too large; a digit behind the last
            changed = np.zeros(size, np.uint8)
            changed[at] = value
            with pytest.raises(WireError):
                unpack_digits(bytes((group,)) + pack_symbols([changed]), 1_001, radix)
    for wrong in (0, group + 1, 255):
        with pytest.raises(WireError):
            unpack_digits(bytes((wrong,)) + data[1:], 1_001, radix)


@pytest.mark.parametrize(
    "compressor", [QSGD(), Dithering(1), NaturalDithering(), Exponential(), Cast(unbiased=True)], ids=str
)
def test_unbiased_quantisers_are_scaled_for_error_feedback(compressor):
    x, scaled = heavy(5_000), contractive(compressor)
    layout = Layout.flat(5_000)
    encoded = scaled.encode(x, layout, KEY)
    assert same_bits(over_the_wire(encoded, layout, scaled), encoded.decoded)
    factor = 1 / (1 + compressor.omega(layout))
    assert torch.allclose(encoded.decoded, factor * compressor.encode(x, layout, KEY).decoded)
    assert scaled.least_bits(encoded, layout) == compressor.least_bits(compressor.encode(x, layout, KEY), layout)


def test_nothing_is_spread_over_nothing():
    assert len(spread(torch.zeros(0), bounds_of(Layout.flat(0), 8), 0, 0)) == 0


# Options and hostile bytes


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (QSGD, {"levels": 0}),
        (QSGD, {"levels": 40_000}),
        (QSGD, {"bucket": 4}),
        (Dithering, {"levels": -1}),
        (Dithering, {"bucket": 0}),
        (NaturalDithering, {"levels": 127}),
        (NaturalDithering, {"norm": "l1"}),
        (Exponential, {"base": 1.0}),
        (Exponential, {"base": float("nan")}),
        (BiasedRounding, {"base": 1e9}),
        (Ternary, {"bucket": 1 << 20}),
        (Blockwise8Bit, {"bucket": 1}),
        (Cast, {"format": "fp8"}),
    ],
    ids=str,
)
def test_options_of_quantisers_out_of_range_are_refused_with_what_is_allowed(kind, options):
    with pytest.raises(ValueError, match="allowed"):
        kind(**options)
    with pytest.raises(ConfigError):
        build(kind, options, "uplink")


def test_what_no_quantiser_sends_is_refused():
    layout = Layout((Entry("a", (600,)), Entry("b", (30,))))
    x = torch.from_numpy(gauss(630)).float()

    def refused(compressor, parameters=None, index=None, stream=b""):
        payload = compressor.encode(x, layout, KEY).payload
        payload = payload if index is None else with_stream(payload, index, stream)
        changed = payload if parameters is None else replace(payload, parameters=parameters(payload.parameters))
        with pytest.raises(WireError):
            type(compressor).decode(changed, layout, KEY)

    for compressor in (QSGD(), Dithering(), NaturalDithering(), Ternary(), Blockwise8Bit()):
        refused(compressor, lambda p: b"\x00\x00\x00\x00" + p[4:])  # buckets of no entry
        refused(compressor, lambda p: b"\x01\x00\x00\x00" + p[4:])
        refused(compressor, lambda p: p[:4] + b"\x00\x00" + p[6:])  # no level
        refused(compressor, lambda p: p[:4] + b"\xff\xff" + p[6:])
        refused(compressor, lambda p: p[:-1])
    refused(NaturalDithering(), lambda p: p[:4] + b"\x7f\x00" + p[6:])  # 127 levels
    refused(Ternary(), lambda p: p[:4] + b"\x02\x00" + p[6:])
    negative = encode_values(np.full(3, -1.0, np.float32), "bf16", None)[1]
    refused(QSGD(), index=0, stream=negative)
    refused(Sign(), index=0, stream=encode_values(np.full(2, -1.0, np.float32), "fp32", None)[1])
    refused(Dithering(), index=1, stream=pack_symbols([np.full(630, 64, np.uint8)]))  # above 63 levels
    refused(Dithering(), index=1, stream=pack_symbols([np.full(630, 0x80, np.uint8)]))
    refused(Cast(), index=0, stream=encode_values(np.full(2, 1.5, np.float32), "bf16", None)[1])  # no power of two
    above = [np.full(630, 124, np.uint8), np.full(630, 1, np.uint8)]
    refused(Cast("fp16"), index=1, stream=pack_symbols(above))  # the number after 2
    refused(Cast(), lambda p: b"\x02" + p[1:])
    for top in (b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xd0\x07\x00\x00"):
        refused(Exponential(), lambda p, top=top: p[:8] + top)
    for base in (0.5, 1.0, 1e300, float("nan"), float("inf")):
        refused(BiasedRounding(), lambda p, base=base: np.float64(base).tobytes() + p[8:])
