"""The entropy coders: close to the bound, exact, and strict about what they read."""

import contextlib
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from thinwire.errors import WireError
from thinwire.random import Key, choose, noise
from thinwire.wire.coding import BLOCK, _least_ans, _pack_ans, entropy, pack_symbols, unpack_symbols
from thinwire.wire.indices import pack_indices, unpack_indices


def symbols(weights, count, seed=0):
    """Independent byte symbols with those weights."""
    edges = np.cumsum(weights) / np.sum(weights)
    uniform = noise(Key(seed, "symbols"), count) * 2.0**-32
    return np.searchsorted(edges[:-1], uniform, side="right").astype(np.uint8)


HISTOGRAMS = {
    "biased coin": [9, 1],
    "dyadic": [4, 2, 1, 1],
    "geometric": np.exp(-np.arange(40) / 3),
    "wide": np.exp(-np.arange(256) / 50),
    "flat": np.ones(256),
    "far apart": [1] + [0] * 200 + [5],
    "constant": [0, 0, 0, 1],
    "signs": [1, 1],
    "two bits": [1, 1, 1, 1],
    "seven bits": np.ones(128),
}


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_symbols_come_back_near_their_entropy(name):
    for count in (1, 2, 17, 300, 5_000, BLOCK + 5_000):
        row = symbols(HISTOGRAMS[name], count)
        data = pack_symbols([row, row[::-1]])
        assert np.array_equal(unpack_symbols(data, 2, count), [row, row[::-1]])
        bound = 2 * entropy(row, count) * count / 8
        assert len(data) <= min(1.02 * bound + 2 * 96, 2 * (count + 2)) + 10


@pytest.mark.parametrize("name", [name for name in HISTOGRAMS if name != "constant"])
def test_no_block_is_shorter_than_what_is_taken_for_its_least(name):
    for count, seed in [(count, seed) for count in (17, 40, 65, 300, 2_000, 60_000) for seed in range(5)]:
        row = symbols(HISTOGRAMS[name], count, seed)
        distinct = len(np.unique(row))
        if distinct > 1:
            assert _least_ans(count, distinct, entropy(row)) <= len(_pack_ans(row))


def test_no_symbol_takes_no_byte():
    assert pack_symbols([np.zeros(0, np.uint8)]) == b""
    assert unpack_symbols(b"", 1, 0).shape == (1, 0)
    with pytest.raises(WireError):
        unpack_symbols(b"\x00", 1, 0)


@pytest.mark.parametrize("name", ["biased coin", "geometric", "wide", "flat", "constant", "signs"])
def test_a_stream_holds_just_the_symbols_it_should(name):
    data = pack_symbols([symbols(HISTOGRAMS[name], 4_000)])
    for wrong in (data + b"\x00", data[:-1], b"\x0b" + data[1:], b""):
        with pytest.raises(WireError):
            unpack_symbols(wrong, 1, 4_000)
    for count in (3_992, 4_008) if name == "signs" else (3_999, 4_001):
        if name != "constant":  # one byte stands for any number
            with pytest.raises(WireError):
                unpack_symbols(data, 1, count)


@pytest.mark.parametrize("width", range(1, 8))
def test_flat_symbols_of_few_bits_are_packed_and_their_padding_is_zero(width):
    row = symbols(np.ones(1 << width), 1_003)
    data = pack_symbols([row])
    assert data[0] == 3 + width
    assert len(data) == 1 + -(-1_003 * width // 8)
    assert np.array_equal(unpack_symbols(data, 1, 1_003)[0], row)
    assert len(pack_symbols([row[:5]])) <= 6
    with pytest.raises(WireError, match="padding"):
        unpack_symbols(data[:-1] + bytes([data[-1] | 1]), 1, 1_003)


def ans_block():
    """A stream of one ANS block, as its table and its words."""
    data = pack_symbols([symbols([90, 5, 5], 4_000)])
    assert data[0] == 3, "not coded with ANS"
    body = data[5:]
    head = 1 + 3 * (body[0] + 1)
    return body[:head], body[head:]


def test_ans_tables_that_no_encoder_writes_are_refused():
    table, words = ans_block()
    assert table[:4] == b"\x02\x00\x01\x02"
    bad_tables = [
        b"\xff" + table[1:],  # more symbols than there are bytes
        b"\x00" + table[1:2] + table[4:6],  # one symbol only
        b"\x02\x00\x02\x01" + table[4:],  # symbols out of order
        table[:6] + b"\x00\x00" + table[8:],  # a symbol that never occurs
        table[:4] + struct.pack("<3H", 1, 1, 1),  # not normalised
    ]
    bad_words = [words + bytes(4), words[4:], words[:-4], b"", b"\x01\x00\x00\x00" + words]
    for bad, tail in [*((bad, words) for bad in bad_tables), *((table, bad) for bad in bad_words)]:
        block = bad + tail
        with pytest.raises(WireError):
            unpack_symbols(b"\x03" + struct.pack("<I", len(block)) + block, 1, 4_000)


def log2_binomial(d, k):
    return (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)


@pytest.mark.parametrize("limit", [1, 2, 9, 1_000, 4_096, 300_000])
def test_indices_come_back_within_five_per_cent_of_the_bound(limit):
    for share in (0, 1e-9, 0.001, 0.01, 0.1, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 0.99, 1):
        count = round(share * limit) if share in (0, 1) else max(1, round(share * limit))
        indices = choose(Key(limit, str(share)), limit, count)
        data = pack_indices(indices, limit)
        assert np.array_equal(unpack_indices(data, count, limit), indices)
        assert len(data) * 8 <= 1.05 * log2_binomial(limit, count) + 64


def test_clustered_indices_take_far_less_than_even_ones():
    clustered = (np.arange(200)[:, None] * 5_000 + np.arange(64)).reshape(-1)
    data = pack_indices(clustered, 1_000_000)
    assert np.array_equal(unpack_indices(data, len(clustered), 1_000_000), clustered)
    assert len(data) * 8 < 0.2 * log2_binomial(1_000_000, len(clustered))


@pytest.mark.parametrize("indices", [choose(Key(1), 5_000, 100), np.arange(0, 90_000, 17)], ids=["rice", "pcodec"])
def test_a_stream_of_indices_is_read_strictly(indices):
    count, limit = len(indices), int(indices[-1]) + 1
    data = pack_indices(indices, limit)
    assert data[0] == (1 if count > 1_000 else 0)
    bad = [b"", data[:1], data[:-1], data + b"\x00", bytes([data[0] | 2]) + data[1:], bytes([data[0] | 4]) + data[1:]]
    for stream in bad:
        with pytest.raises(WireError):
            unpack_indices(stream, count, limit)
    for wrong_count, wrong_limit in ((count - 1, limit), (count + 1, limit), (count, limit - 1), (limit + 1, limit)):
        with pytest.raises(WireError):
            unpack_indices(data, wrong_count, wrong_limit)
    assert np.array_equal(unpack_indices(data, count, limit + 1), indices)


def test_mutated_streams_are_refused_or_hold_what_they_should():
    sys.path.insert(0, str(Path(__file__).parent / "compressors"))
    from fuzz_codecs import mutate

    indices = (np.arange(100)[:, None] * 500 + np.arange(20)).reshape(-1)
    sorted_stream, (table, words) = pack_indices(indices, 50_000), ans_block()
    assert sorted_stream[0] == 1, "not coded with pcodec"
    random = np.random.Generator(np.random.Philox(11))
    for _ in range(3_000):
        with contextlib.suppress(WireError):
            found = unpack_indices(mutate(sorted_stream, random), len(indices), 50_000)
            assert len(found) == len(indices)
            assert (np.diff(found) > 0).all()
            assert 0 <= found[0] <= found[-1] < 50_000
        block = mutate(table + words, random)
        with contextlib.suppress(WireError):
            found = unpack_symbols(b"\x03" + struct.pack("<I", len(block)) + block, 1, 4_000)
            assert set(np.unique(found)) <= set(block[1 : 2 + block[0]])
