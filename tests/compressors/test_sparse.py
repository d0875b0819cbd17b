"""Sparsifiers: the measured constants of each, and what is special about it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from compressors_kit import KEY, MANY, gauss, over_the_wire, same_bits

from compressors import Expectation, Place, decode
from compressors.bernoulli import Bernoulli
from compressors.block_top_k import BlockTopK
from compressors.lazy import Lazy
from compressors.perm_k import PermK
from compressors.rand_k import RandK
from compressors.select import largest_in_rows
from compressors.top_k import TopK
from thinwire.config import build
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout


def error(x, found):
    """Relative squared error."""
    return float(((found.double() - x.double()) ** 2).sum() / (x.double() ** 2).sum())


def test_places_are_counted_in_a_message_of_few_values():
    layout, x = Layout.flat(1_000), torch.from_numpy(gauss(1_000)).float()
    bits = 8 * TopK(0.01, "fp32").encode(x, layout, KEY).payload.size
    assert 397 <= bits <= 1.05 * 397.8 + 128  # 10 values of 32 bits and log2 C(1000, 10) bits of places


def test_a_block_keeps_its_largest_entries_and_a_place_costs_its_bits():
    layout, x = Layout.flat(64_000), torch.from_numpy(gauss(64_000)).float()
    encoded = BlockTopK(64, 1, "fp32").encode(x, layout, KEY)
    kept = np.flatnonzero(encoded.decoded.numpy())
    assert np.array_equal(kept, largest_in_rows(x.numpy(), 64, 1))
    assert len(encoded.payload.streams[0]) == 1 + 6 * 1_000 // 8  # log2 64 bits each


def test_blocks_do_not_reach_across_tensors():
    x = torch.from_numpy(gauss(MANY.numel)).float()
    for block, keep in ((7, 2), (128, 5), (1_000, 3), (65_536, 300)):
        compressor = BlockTopK(block, keep, "fp32")
        encoded = compressor.encode(x, MANY, KEY)
        assert same_bits(over_the_wire(encoded, MANY, compressor), encoded.decoded)
        for entry, piece in MANY.pieces(encoded.decoded):
            for start in range(0, entry.numel, block):
                part = piece[start : start + block]
                assert int((part != 0).sum()) == (len(part) if entry.numel < 256 else min(keep, len(part)))


def test_a_place_beyond_its_block_is_refused():
    layout, compressor = Layout.flat(300), BlockTopK(128, 1)
    payload = compressor.encode(torch.from_numpy(gauss(300)).float(), layout, KEY).payload
    for places in (b"\x00\x00\x00\x2c", b"\x00\x80\x00\x00", b"\x00\x01\x02"):  # the last block has 44 entries
        with pytest.raises(WireError):
            decode(
                replace(payload, streams=(places, payload.streams[1])),
                Expectation(layout, torch.float32, compressor.codecs),
                KEY,
            )
    good = replace(payload, streams=(b"\x00\x00\x7f\x2b", payload.streams[1]))
    found = decode(good, Expectation(layout, torch.float32, compressor.codecs), KEY)
    assert np.flatnonzero(found.numpy()).tolist() == [0, 255, 299]


@pytest.mark.parametrize("compressor", [BlockTopK(32, 4, "fp32"), BlockTopK(32, 1, "fp32")])
def test_block_top_k_captures_more_of_a_gaussian_than_of_a_flat_vector(compressor):
    layout, share = Layout.flat(3_200), compressor.keep / compressor.block
    for x, least, most in ((torch.ones(3_200), 0, 0), (torch.from_numpy(gauss(3_200)).float(), 2 * share, 6 * share)):
        captured = 1 - error(x, compressor.encode(x, layout, KEY).decoded)
        assert captured == pytest.approx(share) if not most else least < captured < most


def test_bernoulli_draws_every_entry_by_itself_with_its_probability():
    layout, x = Layout.flat(200_000), torch.ones(200_000)
    compressor = Bernoulli(0.1, "fp32")
    found = compressor.encode(x, layout, KEY).decoded
    kept = found != 0
    assert bool((found[kept] == 10).all())
    deviation = (200_000 * 0.1 * 0.9) ** 0.5
    assert abs(int(kept.sum()) - 20_000) < 4 * deviation
    counts = kept.view(-1, 100).sum(1).double()  # binomial, not a fixed number as in Rand-k
    assert float(counts.var()) == pytest.approx(9, rel=0.1)
    assert abs(float((kept[1:] & kept[:-1]).double().mean()) - 0.01) < 0.001


def test_the_mask_of_bernoulli_is_cut_anyhow_and_small_tensors_travel_whole():
    x = torch.from_numpy(gauss(MANY.numel)).float()
    encoded = Bernoulli(0.3, "fp32").encode(x, MANY, KEY)
    for entry, piece in MANY.pieces(encoded.decoded):
        assert entry.numel < 256 or 0.2 < float((piece != 0).double().mean()) < 0.4
        if entry.numel < 256:
            assert bool((piece != 0).all())
    assert bool((Bernoulli(1.0, "fp32", "global").encode(x, MANY, KEY).decoded == x).all())
    assert Bernoulli(1.0, "fp32").omega(MANY) == 0


@pytest.mark.parametrize("compressor", [Bernoulli(0.1, shared=True), Lazy(0.5, shared=True)])
def test_with_a_shared_key_all_clients_keep_the_same(compressor):
    x, layout = torch.from_numpy(gauss(2_000)).float(), Layout.flat(2_000)
    own = replace(compressor, shared=False)
    for number in range(8):
        key = KEY.at(round=number)
        here, there = (compressor.encode(x, layout, key.at(client=i)).decoded != 0 for i in (0, 1))
        assert bool((here == there).all())
        support = compressor.support(layout, key)
        assert support is None or np.array_equal(support, np.flatnonzero(here.numpy()))
        assert own.support(layout, key) is None
    assert compressor.independent is False
    differs = [(own.encode(x, layout, KEY.at(client=i)).decoded != 0).sum() for i in range(12)]
    assert len(set(map(int, differs))) > 1


def test_lazy_sends_everything_or_nothing_and_a_coin_of_the_key_says_which():
    layout, x, compressor = Layout.flat(1_000), torch.from_numpy(gauss(1_000)).float(), Lazy(0.25)
    sent = 0
    for number in range(200):
        key = KEY.at(round=number)
        encoded = compressor.encode(x, layout, key)
        assert bool((encoded.decoded == 4 * x).all()) or not bool(encoded.decoded.any())
        sent += bool(encoded.decoded.any())
        if not bool(encoded.decoded.any()):
            assert encoded.payload.size == 17
        other = compressor.encode(x, layout, KEY.at(round=number + 1)).payload
        if bool(other.streams[0]) != bool(encoded.payload.streams[0]):  # a sender cannot choose the outcome
            with pytest.raises(WireError):
                decode(other, Expectation(layout, torch.float32, compressor.codecs), key)
    assert abs(sent - 50) < 4 * (200 * 0.25 * 0.75) ** 0.5


CLIENTS = 5


def shares(vectors, layout, key, clients=CLIENTS, values="fp32"):
    """What a cohort sends, one client after the other."""
    compressor, found = PermK(clients, values), []
    for index, x in enumerate(vectors):
        encoded = compressor.encode(x, layout, key.at(client=index + 3), Place(index, len(vectors)))
        found.append(encoded.decoded)
    return torch.stack(found)


@pytest.mark.parametrize("layout", [MANY, Layout.flat(1_003), Layout.flat(3), Layout.flat(1)], ids=lambda v: v.numel)
def test_permk_clients_who_agree_are_exact_together(layout):
    x = torch.from_numpy(gauss(layout.numel)).double()
    found = shares([x] * CLIENTS, layout, KEY)
    last = PermK(CLIENTS).encode(x, layout, KEY, Place(CLIENTS - 1, CLIENTS))
    assert same_bits(over_the_wire(last, layout, PermK(CLIENTS)), last.decoded)
    assert torch.allclose(found.mean(0), x, rtol=1e-15, atol=0)
    assert int((found != 0).sum()) == layout.numel  # every entry by exactly one


def test_permk_errs_jointly_as_stated_with_all_clients_and_with_some():
    layout, draws = Layout.flat(60), 200
    vectors = torch.from_numpy(gauss(60 * CLIENTS).reshape(CLIENTS, 60) + gauss(60, 9)).double()
    for m in (CLIENTS, 2):
        some = vectors[:m]
        energy, mean = float((some**2).sum(1).mean()), some.mean(0)
        found = torch.stack([shares(some, layout, KEY.at(round=i)).mean(0) for i in range(draws)])
        errors = ((found - mean) ** 2).sum(1)
        expected = CLIENTS / m * energy - float((mean**2).sum())
        assert abs(float(errors.mean()) - expected) < 4 * float(errors.std()) / draws**0.5


def test_every_client_of_permk_errs_by_itself_as_stated_also_where_shares_differ_in_size():
    layout, draws, compressor = Layout.flat(13), 400, PermK(CLIENTS, "fp32")
    x = torch.from_numpy(gauss(13)).double()
    for place in (Place(0, CLIENTS), Place(3, 9), Place(7, 9)):
        found = torch.stack([compressor.encode(x, layout, KEY.at(round=i), place).decoded for i in range(draws)])
        errors = ((found - x) ** 2).sum(1) / (x**2).sum()
        assert abs(float(errors.mean()) - compressor.omega(layout)) < 4 * float(errors.std()) / draws**0.5
        z = (found.mean(0) - x).abs() / (found.std(0) / draws**0.5)
        assert float(z.max()) < 4.5
    assert compressor.omega(layout) == CLIENTS - 1


def test_a_share_that_does_not_exist_is_refused():
    layout, compressor = Layout.flat(100), PermK(4)
    payload = compressor.encode(torch.from_numpy(gauss(100)).float(), layout, KEY, Place(1, 4)).payload
    expectation = Expectation(layout, torch.float32, compressor.codecs)
    for index, count in ((4, 4), (0, 0), (1, 5), (1, 2)):
        parameters = index.to_bytes(4, "little") + count.to_bytes(4, "little") + payload.parameters[8:]
        with pytest.raises(WireError):
            decode(replace(payload, parameters=parameters), expectation, KEY)


def test_linear_compressors_of_one_key_add_up():
    layout = MANY
    a, b = (torch.from_numpy(gauss(layout.numel, seed)).double() for seed in (1, 2))
    for compressor in (RandK(0.3, "fp32", shared=True), Bernoulli(0.3, "fp32", shared=True), Lazy(0.9, shared=True)):
        assert compressor.linear
        assert not replace(compressor, values="bf16").linear
        assert not replace(compressor, shared=False).linear
        sums = [compressor.encode(v, layout, KEY.at(client=i)).decoded for i, v in enumerate((a, b, a + b))]
        assert torch.allclose(sums[0] + sums[1], sums[2], rtol=1e-12, atol=1e-12)
    assert not PermK().linear


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BlockTopK, {"block": 1}),
        (BlockTopK, {"block": 65_537}),
        (BlockTopK, {"block": 8, "keep": 9}),
        (BlockTopK, {"keep": 0}),
        (Bernoulli, {"probability": 0.0}),
        (Bernoulli, {"probability": float("nan")}),
        (Bernoulli, {"scope": "row"}),
        (Lazy, {"probability": 1.5}),
        (PermK, {"clients": 0}),
        *((kind, {"values": "fp8"}) for kind in (BlockTopK, Bernoulli, Lazy, PermK)),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_with_what_is_allowed(kind, options):
    with pytest.raises(ValueError, match="allowed"):
        kind(**options)
    with pytest.raises(ConfigError):
        build(kind, options, "uplink")
