"""The shuffle without a table: a permutation, pinned, uniform, and the same however it is cut."""

import hashlib

import numpy as np
import pytest
import torch

from thinwire.bijection import MOST, shuffled
from thinwire.random import Key

KEY = Key(42, "golden shuffle", round=7)


@pytest.mark.parametrize("population", [0, 1, 2, 3, 5, 10, 97, 4_096, 65_537])
def test_every_index_has_one_image(population):
    images = shuffled(KEY, population, 0, population)
    assert np.array_equal(np.sort(images), np.arange(population))


def test_the_images_are_the_golden_ones():
    assert shuffled(KEY, 10, 0, 10).tolist() == [7, 1, 8, 9, 3, 4, 5, 0, 6, 2]
    assert shuffled(KEY, 25_000_000, 24_999_996, 25_000_000).tolist() == [3654328, 23091301, 11229419, 15742321]
    assert shuffled(KEY, MOST, MOST - 2, MOST).tolist() == [1411766770, 3848628514]
    images = shuffled(KEY, 100_003, 0, 100_003).astype("<i8")
    assert hashlib.blake2b(images.tobytes(), digest_size=8).hexdigest() == "a3778a111e39cb10"


def test_any_part_on_any_number_of_threads_has_the_same_images():
    whole, before = shuffled(KEY, 300_000, 0, 300_000), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for start, stop in ((0, 300_000), (7, 7), (131_071, 299_999)):
                assert np.array_equal(shuffled(KEY, 300_000, start, stop), whole[start:stop])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("population", [2, 5, 30])
def test_over_the_keys_every_index_goes_everywhere_alike(population):
    rounds = 3_000
    hits, neighbours = np.zeros((population, population)), 0
    for number in range(rounds):
        images = shuffled(KEY.at(round=number), population, 0, population)
        hits[np.arange(population), images] += 1
        neighbours += int(abs(images[0] - images[1]) == 1)
    expected = rounds / population
    assert np.abs(hits - expected).max() < 4.5 * expected**0.5
    assert abs(neighbours - 2 * expected) < 4.5 * (2 * expected) ** 0.5


def test_neighbours_scatter():
    images = shuffled(KEY, 1_000_000, 0, 20_000)
    counts = np.bincount(images // 50_000, minlength=20)  # 1,000 each, were they drawn at random
    assert np.abs(counts - 1_000).max() < 4.5 * 1_000**0.5
    steps = np.diff(images)
    assert len(np.unique(steps)) > 0.97 * len(steps)


def test_what_is_beyond_the_population_has_no_image():
    for population, start, stop in ((10, 0, 11), (10, 5, 4), (10, -1, 4), (MOST + 1, 0, 1)):
        with pytest.raises(ValueError, match="allowed"):
            shuffled(KEY, population, start, stop)
