"""DRIVE and EDEN: their constants, their mean on near-sparse vectors, their bytes, and the centroids."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from compressors_kit import DTYPES, KEY, MANY, gauss, over_the_wire, same_bits

from compressors import Expectation, decode
from compressors.drive import Drive
from compressors.eden import Eden
from compressors.hadamard import Blocks, Run, cut, rotated_size, sign_words
from compressors.lloyd_max import ERROR, MOST_BITS, centroids, nearest
from compressors.rotated import Form, Quantiser, encode_rotated
from thinwire.errors import WireError
from thinwire.layout import Entry, Layout


def mean_error(compressor, x, layout, draws=1):
    found = [compressor.encode(x, layout, KEY.at(round=i)).decoded.double() for i in range(draws)]
    return float(np.mean([((one - x.double()) ** 2).sum() / (x.double() ** 2).sum() for one in found]))


@pytest.mark.parametrize(
    ("compressor", "constant"),
    [
        (Drive(), math.pi / 2 - 1),
        (Drive(biased=True), 1 - 2 / math.pi),
        (Eden(1), math.pi / 2 - 1),
        (Eden(2), 0.1331),
        (Eden(3), 0.0358),
        (Eden(4), 0.00959),
        (Eden(2, biased=True), 0.1175),
        (Eden(3, biased=True), 0.0345),
        (Eden(4, biased=True), 0.0095),
        (Eden(8), 4.12e-5),
        (Eden(0.25), 2 * math.pi - 1),
        (Eden(0.25, biased=True), 1 - 0.5 / math.pi),
    ],
    ids=str,
)
def test_the_error_is_that_of_the_best_quantiser_of_a_gaussian_whatever_the_vector(compressor, constant):
    layout = Layout.flat(60_000)
    fifth = torch.from_numpy(gauss(60_000) ** 5).float()  # a few entries hold most of the energy
    for x in (torch.from_numpy(gauss(60_000)).float(), fifth, torch.ones(60_000)):
        assert mean_error(compressor, x, layout, 3) == pytest.approx(constant, rel=0.05)  # 3 deviations of three draws
    stated = compressor.alpha(layout) if compressor.biased else compressor.omega(layout)
    assert stated == pytest.approx(1 - constant if compressor.biased else constant, rel=0.02)


def many_draws(x, draws, once):
    """Mean of the decoded x over independent rotations: the real code, with one draw in each column of a block.

    ``once``: plain Walsh-Hadamard rounds instead, so many, as others do.
    """
    rows, columns, total = len(x), 1_024, np.zeros(len(x))
    for batch in range(draws // columns):
        run = Run(0, rows * columns, 0, rows, columns)
        values = np.repeat(x.astype(np.float32)[:, None], columns, 1)
        if once:
            found = plain_drive(values, once, batch)
        else:
            quantiser = Quantiser(Blocks(run, sign_words([run], KEY.at(round=batch)), torch.float32), Form(1))
            _, levels, scale = quantiser.quantise(values.reshape(-1), 0, biased=False)
            found = np.empty(run.size, np.float32)
            quantiser.rebuild(levels, scale, found)
        total += found.reshape(rows, columns).sum(1, dtype=np.float64)
    return total / draws


def plain_drive(values, rounds, seed):
    """DRIVE with plain rounds H D: by matrix, for the short vectors of this test."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < len(values):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix /= np.float32(len(values) ** 0.5)
    random = np.random.Generator(np.random.Philox(seed))
    signs = [random.integers(0, 2, values.shape).astype(np.float32) * 2 - 1 for _ in range(rounds)]
    z = values
    for one in signs:
        z = matrix @ (one * z)
    q = np.where(z < 0, np.float32(-1), np.float32(1))
    scale = (values**2).sum(0) / (z * q).sum(0)
    for one in reversed(signs):
        q = one * (matrix @ q)
    return q * scale


@pytest.mark.parametrize("large", [1, 2, 4])
def test_the_mean_is_x_on_near_sparse_vectors_where_one_or_two_plain_rounds_are_off(large):
    draws, x = 20_480, 1e-3 * gauss(256, 7)
    x[:large] = 1
    x /= np.linalg.norm(x)
    noise = math.sqrt(0.571 / draws)  # the norm of the mean's own error
    off = {once: float(np.linalg.norm(many_draws(x, draws, once) - x)) for once in (0, 1, 2)}
    assert off[0] < 1.15 * noise
    assert off[2] > 5 * noise
    if large == 1:
        rest = many_draws(x, draws, 1)[1:]
        assert float(np.abs(rest).max()) < 0.1 * float(np.abs(x[1:]).max()), "one round drops what is small"
    else:
        assert off[1] > 50 * noise


def test_bits_stay_near_one_without_padding_to_a_power_of_two():
    for length in (100_000, 262_145, 600_000):
        payload = Drive().encode(torch.from_numpy(gauss(length)).float(), Layout.flat(length), KEY).payload
        assert payload.size * 8 / length < 1.012
    for length in (257, 1_000, 4_097):
        payload = Drive().encode(torch.from_numpy(gauss(length)).float(), Layout.flat(length), KEY).payload
        assert payload.size <= rotated_size(cut([(0, length)])) / 8 + 60
        assert payload.size <= length / 8 * 1.5 + 60


def test_symbols_are_coded_near_their_entropy():
    layout, x = Layout.flat(300_000), torch.from_numpy(gauss(300_000)).float()
    for bits, entropy in ((2, 1.911), (3, 2.825), (4, 3.765), (6, 5.710), (8, 7.694)):
        compressor = Eden(bits)
        encoded = compressor.encode(x, layout, KEY)
        assert encoded.payload.size <= 1.02 * compressor.least_bits(encoded, layout) / 8
        assert compressor.least_bits(encoded, layout) / 3e5 == pytest.approx(entropy, abs=0.02)


def test_four_bits_hold_on_heavy_tails_with_another_scale_in_every_part():
    heavy = gauss(400_000, 1) / np.sqrt(np.mean([gauss(400_000, i) ** 2 for i in (2, 3, 4)], axis=0))
    x = torch.from_numpy(heavy * np.repeat(np.exp(2 * gauss(100, 5)), 4_000)).float()
    assert mean_error(Eden(4), x, Layout.flat(400_000)) < 2e-2


def test_tensors_share_no_scale_and_small_ones_travel_whole():
    layout = Layout((Entry("weight", (100, 30)), Entry("bias", (100,)), Entry("tiny", (30, 10))))
    x = torch.from_numpy(gauss(layout.numel)).float()
    x[:3_000] *= 1e30
    x[3_100:] *= 1e-30
    found = layout.unflatten(Eden(4).encode(x, layout, KEY).decoded)
    exact = layout.unflatten(x)
    assert torch.equal(found["bias"], exact["bias"])
    for name in ("weight", "tiny"):
        gap = (found[name] - exact[name]).double()
        assert float((gap**2).sum() / (exact[name].double() ** 2).sum()) < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("compressor", [Drive(), Drive(biased=True), Eden(4), Eden(4, biased=True)], ids=str)
def test_a_chunk_whose_squares_vanish_beside_its_tensors_others_is_carried(compressor, dtype):
    layout = Layout.flat(2 * 4_096)  # two chunks, entry for entry beside each other
    for tiny in (1e-18, 1e-24, 1e-30) if dtype == torch.float32 else (1e-150, 1e-164, 1e-300):
        for seed in range(8):
            x = torch.from_numpy(gauss(layout.numel, seed)).to(dtype)
            x[1::2] *= tiny
            key = KEY.at(round=seed)
            encoded = compressor.encode(x, layout, key)
            assert same_bits(over_the_wire(encoded, layout, compressor, key), encoded.decoded)
            gap = float(((encoded.decoded - x).double() ** 2).sum() / (x.double() ** 2).sum())
            assert gap < 0.7


def test_clients_rotate_independently_so_that_their_mean_errs_less():
    x, layout = torch.from_numpy(gauss(5_000)).float(), Layout.flat(5_000)
    found = [Drive().encode(x, layout, KEY.at(client=client)).decoded for client in range(40)]
    gap = torch.stack(found).mean(0) - x
    assert float((gap**2).sum() / (x**2).sum()) == pytest.approx(0.571 / 40, rel=0.1)


@pytest.mark.parametrize("form", [Form(1), Form.of(0.3), Form(3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_tensors_and_arrays_are_quantised_to_the_same_bits(form, dtype, biased):
    x = torch.from_numpy(gauss(20_000) ** 3).to(dtype)
    runs = cut([(0, 20_000)])
    words = sign_words(runs, KEY)
    for run in runs:
        piece, found = x[run.start : run.stop], []
        for device in (None, torch.device("cpu")):
            quantiser = Quantiser(Blocks(run, words, dtype, device), form)
            symbols, levels, scale = quantiser.quantise(piece if device else piece.numpy(), 3, biased)
            target = torch.empty_like(piece)
            quantiser.rebuild(levels, scale, target if device else target.numpy())
            found.append((torch.as_tensor(symbols), torch.from_numpy(scale), target))
        assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("bits", range(1, MOST_BITS + 1))
def test_centroids_are_those_of_lloyd_and_max(bits):
    levels = centroids(bits)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
    share = np.diff([0.5 * math.erfc(-edge / math.sqrt(2)) for edge in edges])
    assert np.allclose(-np.diff(density) / share, levels, atol=2e-6)  # each is the mean of its cell
    assert 1 - (share * levels**2).sum() == pytest.approx(ERROR[bits], rel=2e-3)
    assert np.array_equal(np.diff(nearest(bits).astype(int)).clip(0), np.diff(nearest(bits).astype(int)))


@pytest.mark.parametrize("bits", [0, -1, 1.5, 9, float("nan"), float("inf")])
def test_rates_that_no_code_has_are_refused(bits):
    with pytest.raises(ValueError, match="allowed"):
        Eden(bits)


def test_forms_that_no_encoder_writes_are_refused():
    x = torch.from_numpy(gauss(MANY.numel)).float()
    payload = Eden(2).encode(x, MANY, KEY).payload
    assert over_the_wire(Eden(2).encode(x, MANY, KEY), MANY, Eden(2)).shape == x.shape
    bits = payload.parameters
    for parameters in (
        b"\x00" + bits[1:],
        b"\x09" + bits[1:],
        b"\x01" + bits[1:],  # symbols above one bit
        bits[:1] + b"\xff\x7f" + bits[3:],  # half of the entries, two bits each
        bits[:-1],
    ):
        with pytest.raises(WireError):
            Eden.decode(replace(payload, parameters=parameters), MANY, KEY)
    for changed in (replace(payload, streams=payload.streams[:1]), replace(payload, codec="drive")):
        with pytest.raises(WireError):
            decode(changed, Expectation(MANY, torch.float32, frozenset({changed.codec})), KEY)
    negative = encode_rotated("eden", x, MANY, KEY, Form(2), biased=False).payload
    scales = np.frombuffer(negative.streams[1], np.uint8).copy()
    assert len(scales) > 0
    flat = Drive().encode(torch.ones(256), Layout.flat(256), KEY).payload  # one scale: four raw bytes, exponent last
    low, *_ = flat.streams[1][:1]
    assert low == 0
    signed = bytearray(flat.streams[1])
    signed[4] |= 1  # the words are rotated left by one: their sign is the lowest bit
    with pytest.raises(WireError, match="negative"):
        Drive.decode(replace(flat, streams=(flat.streams[0], bytes(signed))), Layout.flat(256), KEY)
