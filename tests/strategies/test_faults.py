"""Section S5 of the acceptance list, in the pure loop: lost messages and lost clients do no lasting harm."""

import pytest
from strategies_kit import TOP_8, full, the_ridge

from strategies.ef14 import EF14
from strategies.ef21 import EF21
from strategies.loop import Faults, run


def final_error(faults: Faults, rounds: int = 300) -> float:
    problem = the_ridge()
    return run(full(EF21(TOP_8), 1.2 / problem.L), problem, rounds, faults=faults, until=1e-22).errors[-1]


def test_lost_uplinks_do_no_harm_with_commit_on_ack():
    assert final_error(Faults(loss=0.05)) < 1e-20


def test_lost_uplinks_leave_a_permanent_bias_without_it():
    assert final_error(Faults(loss=0.05, commit_on_ack=False)) > 1e-3


@pytest.mark.parametrize("recovery", ["reset", "restore"])
def test_a_restarted_client_does_no_harm_when_both_ends_know(recovery):
    assert final_error(Faults(restart_round=60, restart_client=1, recovery=recovery)) < 1e-20


def test_a_client_that_silently_restarts_at_zero_leaves_a_permanent_bias():
    assert final_error(Faults(restart_round=60, restart_client=1, recovery="zero")) > 1e-3


def test_ef14_takes_no_lasting_harm_even_from_silence():
    problem = the_ridge()
    method = full(EF14(TOP_8), 0.05 / problem.L)
    sound = run(method, problem, 200).errors[-1]
    lost = run(method, problem, 200, faults=Faults(loss=0.05, commit_on_ack=False)).errors[-1]
    assert lost < 10 * sound
