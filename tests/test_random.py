"""Randomness: golden values that every host and version must reproduce, and that it is random."""

import hashlib

import numpy as np
import pytest
import torch

from thinwire.random import NOISE_BLOCK, Key, choose, coin, noise, noise_on, permutation, uniforms

KEY = Key(42, "golden", round=7, client=3, tensor=1, direction="up")


def test_a_stream_that_is_begun_within_another_is_the_same():
    for key, count, start in ((KEY, 5, 0), (KEY.at(client=9), 1, 8), (Key(0), 9, 1 << 40), (KEY, 5, 4)):
        parts = np.frombuffer(key.digest(), "<u8").astype(np.uint64)
        assert np.array_equal(
            key.words(count, start), np.random.Philox(key=parts, counter=start // 4).random_raw(count)
        )


def digest(array):
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


GOLDEN = {
    "digest": "73448e8f9af8005a4e79d5b7d343d6a2",
    "words": [9905968746308006257, 18207368354019914640, 13466413646161542834],
    "integer": 4952984373154003128,
    "uniforms": [0.5370036417660324, 0.9870234162336107],
    "coins": "11101100010000000000100101011101",
    "choose few": [6257, 160943, 246254, 542834, 914640],
    "choose many": "62c6b2ed32be0aec",
    "permutation": [4, 9, 6, 0, 8, 7, 2, 5, 3, 1],
    "long permutation": "95bf798ae7ff5f8b",
    "noise": [3032349237, 2834181015, 859283121],
    "long noise": "1d95c617cf346012",
}


def drawn():
    """Everything that two machines must agree on, drawn once."""
    return {
        "digest": KEY.digest().hex(),
        "words": [int(word) for word in KEY.words(3)],
        "integer": KEY.integer(),
        "uniforms": uniforms(KEY, 2).tolist(),
        "coins": "".join(str(int(coin(KEY.at(round=i), 0.3))) for i in range(32)),
        "choose few": choose(KEY, 1_000_000, 5).tolist(),
        "choose many": digest(choose(KEY, 10_000, 7_000)),
        "permutation": permutation(KEY, 10).tolist(),
        "long permutation": digest(permutation(KEY, 100_000)),
        "noise": noise(KEY, 3).tolist(),
        "long noise": digest(noise(KEY, 3 * NOISE_BLOCK + 5)),
    }


def test_the_streams_are_the_golden_ones():
    assert drawn() == GOLDEN


def test_a_stream_can_be_read_from_the_middle():
    assert np.array_equal(KEY.words(23, start=8), KEY.words(31)[8:])
    assert np.array_equal(KEY.words(3, start=4 << 40)[:2], KEY.words(2, start=4 << 40))


def test_every_coordinate_of_a_key_changes_the_stream():
    keys = [
        KEY,
        KEY.at("mask"),
        KEY.at("rounding"),
        KEY.at(round=8),
        KEY.at(client=4),
        KEY.shared(),
        KEY.at(tensor=2),
        KEY.at(direction="down"),
        Key(43, "golden", 7, 3, 1, "up"),
    ]
    assert len({key.digest() for key in keys}) == len(keys)
    assert KEY.at("a").at("b").purpose == "golden/a/b"
    assert KEY.shared() == KEY.at(client=9).shared()


def test_a_chosen_set_is_distinct_ascending_and_uniform():
    hits = np.zeros(20)
    for i in range(2_000):
        for count in (4, 15):
            chosen = choose(KEY.at(round=i), 20, count)
            assert len(chosen) == count
            assert (np.diff(chosen) > 0).all()
            assert chosen.min() >= 0
            assert chosen.max() < 20
            hits[chosen] += 1
    assert np.abs(hits / 2_000 - 19 / 20).max() < 0.07


def test_impossible_choices_are_refused():
    for population, count in ((3, 4), (3, -1)):
        with pytest.raises(ValueError, match="cannot choose"):
            choose(KEY, population, count)
    assert choose(KEY, 0, 0).tolist() == []
    assert choose(KEY, 3, 3).tolist() == [0, 1, 2]


def test_a_permutation_holds_every_index_once():
    assert np.array_equal(np.sort(permutation(KEY, 1_000)), np.arange(1_000))


def test_coins_fall_as_often_as_they_should():
    for probability in (0.0, 0.1, 0.5, 1.0):
        share = np.mean([coin(KEY.at(round=i), probability) for i in range(2_000)])
        assert abs(share - probability) <= 5 * (probability * (1 - probability) / 2_000) ** 0.5


@pytest.mark.parametrize("count", [0, 1, 1_000, NOISE_BLOCK, NOISE_BLOCK + 1, 200_000])
def test_noise_is_the_same_from_numpy_and_torch(count):
    here = noise(KEY, count)
    assert here.tobytes() == noise_on(KEY, count, "cpu").numpy().tobytes()
    assert np.array_equal(here[: count // 2], noise(KEY, count // 2)), "a shorter draw is a prefix"


@pytest.mark.cuda
def test_noise_is_the_same_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert noise(KEY, 200_000).tobytes() == noise_on(KEY, 200_000, "cuda").cpu().numpy().tobytes()


def test_noise_looks_random_within_and_across_keys():
    count = 1 << 18
    a, b = noise(KEY, count), noise(KEY.at(round=8), count)
    for words in (a, a ^ b, a - b, a[1:] ^ a[:-1], a[NOISE_BLOCK:] ^ a[:-NOISE_BLOCK]):
        bits = np.unpackbits(words.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1)
        assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / len(words) ** 0.5
        for shift in (0, 8, 16, 24):
            counts = np.bincount((words >> np.uint32(shift)) & np.uint32(255), minlength=256)
            chi = ((counts - len(words) / 256) ** 2 / (len(words) / 256)).sum()
            assert abs(chi - 255) < 6 * (2 * 255) ** 0.5
    for other in (b, np.roll(a, 1), np.roll(a, 1 << 8)):
        correlation = np.corrcoef(a.astype(np.float64), other.astype(np.float64))[0, 1]
        assert abs(correlation) < 5 / count**0.5
