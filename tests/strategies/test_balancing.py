"""The orders of GraB, PairBalance and CD-GraB on random vectors; the herding bound is what they lower."""

from itertools import pairwise

import numpy as np
import pytest

from strategies.balancing import (
    balance,
    coordinate,
    herding_bound,
    next_order,
    next_order_of_units,
    pair_differences,
)

DIMENSION = 16


def vectors(units: int, clients: int = 8, seed: int = 0, shift: float = 0.0) -> list[np.ndarray]:
    """Uniform vectors, the longest of norm 1; with ``shift`` each client's around a centre of its own."""
    random = np.random.Generator(np.random.Philox(seed))
    drawn = [random.random((units, DIMENSION)) + shift * random.standard_normal(DIMENSION) for _ in range(clients)]
    return [v / (DIMENSION / 3) ** 0.5 for v in drawn]


def play(gradients, rounds, kind, participation=1.0, seed=0):
    """The herding bound before the first and after every round; absent clients keep their order."""
    random = np.random.Generator(np.random.Philox(seed + 100))
    orders = [random.permutation(len(g)) for g in gradients]
    bounds = [herding_bound(gradients, orders)]
    for _ in range(rounds):
        cohort = sorted(random.choice(len(gradients), round(participation * len(gradients)), replace=False))
        for client, order in zip(cohort, renewed(gradients, orders, cohort, kind, random), strict=True):
            orders[client] = order
        bounds.append(herding_bound(gradients, orders))
    return bounds


def renewed(gradients, orders, cohort, kind, random):
    if kind == "random":
        return [random.permutation(len(orders[i])) for i in cohort]
    if kind == "grab":
        centred = [gradients[i] - gradients[i].mean(0) for i in cohort]
        signs = [balance(np.zeros(DIMENSION), g[orders[i]]) for g, i in zip(centred, cohort, strict=True)]
        return [next_order_of_units(orders[i], s) for i, s in zip(cohort, signs, strict=True)]
    differences = [pair_differences(gradients[i], orders[i]) for i in cohort]
    if kind == "id-grab":
        signs = [balance(np.zeros(DIMENSION), v) for v in differences]
    else:
        signs = coordinate(differences, 1.0 if kind == "hybrid" else 0.0)
    return [next_order(orders[i], s) for i, s in zip(cohort, signs, strict=True)]


def test_the_coordinated_bound_does_not_grow_with_the_examples():
    after = {m: play(vectors(m), 10, "cd-grab") for m in (64, 512, 4096)}
    assert all(bounds[-1] <= 2.0 for bounds in after.values())
    assert all(0.4 <= bounds[1] / bounds[0] <= 0.65 for m, bounds in after.items() if m > 64)  # halving per pass
    random = {m: play(vectors(m), 1, "random")[-1] for m in (64, 4096)}
    assert random[4096] >= 5 * random[64]
    assert random[4096] >= 10 * after[4096][-1]


def test_coordination_beats_every_client_on_its_own_which_beats_random_reshuffling():
    gradients = vectors(512)
    last = {kind: np.mean(play(gradients, 12, kind)[-4:]) for kind in ("cd-grab", "id-grab", "grab", "random")}
    assert 1.5 * last["cd-grab"] < min(last["id-grab"], last["grab"])
    assert 1.5 * max(last["id-grab"], last["grab"]) < last["random"]


def test_clients_with_other_data_are_balanced_too():
    gradients = vectors(256, shift=1.0)
    assert np.mean(play(gradients, 10, "cd-grab")[-3:]) < 0.7 * np.mean(play(gradients, 10, "id-grab")[-3:])


def test_at_half_participation_the_hybrid_holds_where_pure_coordination_does_not():
    gradients = vectors(512)
    bounds = {kind: np.mean(play(gradients, 30, kind, 0.5)[-5:]) for kind in ("cd-grab", "hybrid", "random")}
    assert bounds["hybrid"] <= 0.7 * bounds["cd-grab"]
    assert bounds["cd-grab"] < bounds["random"]


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
    bounds = play(vectors(4096), 6, "cd-grab")
    assert all(0.35 < after / before < 0.75 for before, after in pairwise(bounds[:4]))
