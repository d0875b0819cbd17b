"""The orders of GraB, PairBalance and CD-GraB on random vectors; the herding bound is what they lower."""

from itertools import pairwise

import numpy as np
import pytest

from strategies.balancing import coordinate, next_order, next_order_of_units
from strategies.ordering_problems import bounds, random_vectors


def vectors(units, seed=0, shift=0.0):
    return random_vectors(8, units, 16, seed, shift)


def test_the_coordinated_bound_does_not_grow_with_the_examples():
    after = {m: bounds(vectors(m), "cd-grab", 10) for m in (64, 512, 4096)}
    assert all(passes[-1] <= 2.0 for passes in after.values())
    assert all(0.4 <= passes[1] / passes[0] <= 0.65 for m, passes in after.items() if m > 64)  # halving per pass
    random = {m: bounds(vectors(m), "random", 1)[-1] for m in (64, 4096)}
    assert random[4096] >= 5 * random[64]
    assert random[4096] >= 10 * after[4096][-1]


def test_coordination_beats_every_client_on_its_own_which_beats_random_reshuffling():
    gradients = vectors(512)
    last = {kind: np.mean(bounds(gradients, kind, 12)[-4:]) for kind in ("cd-grab", "id-grab", "grab", "random")}
    assert 1.5 * last["cd-grab"] < min(last["id-grab"], last["grab"])
    assert 1.5 * max(last["id-grab"], last["grab"]) < last["random"]


def test_clients_with_other_data_are_balanced_too():
    gradients = vectors(256, shift=3.0)
    assert np.mean(bounds(gradients, "cd-grab", 10)[-3:]) < 0.7 * np.mean(bounds(gradients, "id-grab", 10)[-3:])


def test_at_half_participation_the_hybrid_holds_where_pure_coordination_does_not():
    gradients = vectors(512)
    found = {kind: np.mean(bounds(gradients, kind, 30, 0.5)[-5:]) for kind in ("cd-grab", "hybrid", "random")}
    assert found["hybrid"] <= 0.7 * found["cd-grab"]
    assert found["cd-grab"] < found["random"]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_blocks_give_the_signs_of_one_step_at_a_time(weight):
    random = np.random.Generator(np.random.Philox(3))
    differences = [random.standard_normal((count, 5)) for count in (70, 9, 40, 0)]
    total, own = np.zeros(5), [np.zeros(5) for _ in differences]
    expected = [[] for _ in differences]
    for t in range(70):
        for i, v in enumerate(differences):
            if t < len(v):
                plus = (total + weight * own[i]) @ v[t] <= 0
                expected[i].append(int(plus))
                for s in (total, own[i]):
                    s += v[t] if plus else -v[t]
    assert [s.tolist() for s in coordinate(differences, weight)] == expected


@pytest.mark.parametrize("units", [0, 1, 2, 3, 7, 8])
def test_an_order_stays_a_permutation_and_its_odd_unit_goes_to_the_middle(units):
    random = np.random.Generator(np.random.Philox(units))
    order = random.permutation(units)
    after = next_order(order, random.integers(0, 2, units // 2).astype(np.uint8))
    assert sorted(after) == list(range(units))
    if units % 2:
        assert after[units // 2] == order[-1]


def test_a_unit_of_plus_goes_left_and_its_partner_to_the_mirrored_place():
    assert next_order(np.arange(6), np.array([1, 0, 1], np.uint8)).tolist() == [0, 3, 4, 5, 2, 1]
    assert next_order_of_units(np.arange(5), np.array([1, 0, 0, 1, 1], np.uint8)).tolist() == [0, 3, 4, 2, 1]


def test_wrong_counts_of_signs_are_refused():
    with pytest.raises(ValueError, match="3 are needed"):
        next_order(np.arange(6), np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="5 units"):
        next_order_of_units(np.arange(5), np.zeros(2, np.uint8))


def test_the_excess_halves_with_every_pass_until_the_floor():
    passes = bounds(vectors(4096), "cd-grab", 6)
    assert all(0.35 < after / before < 0.75 for before, after in pairwise(passes[:4]))
