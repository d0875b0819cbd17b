"""The search for a rate: the same for all, its optimum interior, and the run it returns is the run at that rate."""

import pytest
from strategies_kit import TOP_8, full

from strategies.ef21 import EF21
from strategies.fedavg import FedAvg
from strategies.loop import run
from strategies.problems import quadratic
from strategies.tuning import settled, tune

PROBLEM = quadratic(0, clients=3, numel=10, kappa=5.0)
TARGET = 1e-8


def rounds_at(rate: float) -> float:
    return run(full(FedAvg(), rate), PROBLEM, 400, until=TARGET).uplink_to(TARGET)


@pytest.mark.parametrize("start", [0.2, 1.8])
def test_the_best_rate_is_found_from_either_side_and_both_neighbours_are_worse(start: float) -> None:
    found = tune(lambda rate: full(FedAvg(), rate), PROBLEM, start, TARGET, 400, factor=1.25)
    assert found.rate == pytest.approx(2 / (1 + 1 / 5), rel=0.25)  # 2/(L + mu), and what a factor of 1.25 can miss
    assert found.uplink_bytes <= min(rounds_at(found.rate * 1.25), rounds_at(found.rate / 1.25))
    assert found.uplink_bytes == rounds_at(found.rate)


def test_what_never_reaches_its_target_is_tuned_by_where_it_settles() -> None:
    def naive(rate: float):
        return full(FedAvg(TOP_8), rate)

    options = {"factor": 2.0, "check": False, "audit": False}
    found = tune(naive, PROBLEM, 4.0, 0.0, 60, must_reach=False, **options)
    assert not found.trace.diverged
    for factor in (0.5, 2.0):
        other = run(naive(found.rate * factor), PROBLEM, 60, check=False)
        assert settled(found.trace.errors) <= settled(other.errors)
    with pytest.raises(ValueError, match="no rate near"):
        tune(naive, PROBLEM, 4.0, 1e-300, 60, **options)


def test_a_finer_search_goes_on_from_a_coarse_one_and_runs_nothing_twice() -> None:
    tried = []

    def make(rate: float):
        tried.append(rate)
        return full(EF21(TOP_8), rate)

    coarse = tune(make, PROBLEM, 0.5, 1e-6, 400, factor=2.0)
    fine = tune(make, PROBLEM, coarse.rate, 1e-6, 400, factor=1.2, known=coarse)
    assert len(tried) == len(set(tried))
    assert fine.uplink_bytes <= coarse.uplink_bytes


def test_a_run_without_audit_has_the_same_bits() -> None:
    method = full(EF21(TOP_8), 0.5)
    audited, plain = (run(method, PROBLEM, 60, audit=audit, rebuild_every=20) for audit in (True, False))
    assert audited.errors == plain.errors
    assert audited.uplink_bytes == plain.uplink_bytes
    assert audited.model.equal(plain.model)


def test_content_is_what_a_formula_of_bits_counts() -> None:
    trace = run(full(FedAvg(), 0.5), PROBLEM, 4)
    assert trace.contents[-1] == (4 * 3 * 10 * 8, 4 * 3 * 10 * 8)
    assert sum(trace.uplink_bytes) > trace.contents[-1][0]
