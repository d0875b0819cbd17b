"""Every method does what its theory says, with every class of compressor, sampled or not, both ways: or it refuses.

New methods and compressors join by themselves. The problem is small and well-conditioned, so that the steps of theory,
some of which are tiny, show what they bring within a hundred rounds.
"""

import dataclasses
import math
import re
import statistics
from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest

from compressors import registry as compressors
from strategies.base import Federation, Method
from strategies.builder import build_method
from strategies.descent import Descent
from strategies.estimator import Estimator
from strategies.loop import run
from strategies.problems import FiniteSum, ridge
from strategies.registry import find_method, method_names
from strategies.theory import Promise, Theory
from strategies.trace import Trace
from thinwire.errors import ConfigError

CLIENTS, NUMEL = 4, 20
ROUNDS, MOST_ROUNDS = 100, 400
REACHED = 1e-5  # far below where a compressor without shifts or feedback stops on this problem, 1e-3 to 1e-1
FALLEN = 0.95  # what is left of the error, at most, after the rounds at the smallest step of all theories
NEAR, EXACT = 0.2, 1e-6  # between them lie the floors of methods that stop short
SLACK = 30.0  # what the shifts' and estimates' own errors at the start may add to the error, in theory's potentials
FLOOR_SLACK = 2.0  # of a bound on the mean of a random error, of which a median over rounds is seen

UPLINKS = {
    "identity": {"name": "identity"},
    "rand-k": {"name": "rand-k", "fraction": 0.5, "values": "fp32", "scope": "global"},
    "natural": {"name": "natural"},
    "top-k": {"name": "top-k", "fraction": 0.5, "values": "fp32", "scope": "global"},
}
DOWNLINKS = ("top-k", "natural")  # the first that a method takes


@cache
def problem() -> FiniteSum:
    """Heterogeneous, kappa = 3, L_max = 1.8 L."""
    return ridge(0, CLIENTS, 40, NUMEL, 10.0)


def federation() -> Federation:
    return Federation.uniform(problem().layout, CLIENTS, 0, problem().x0.dtype)


def work_of(name: str) -> str:
    """Full gradients where a method leaves it open."""
    kind = find_method(name)
    is_open = issubclass(kind, Estimator) or "work" in {f.name for f in dataclasses.fields(kind)}
    return "full" if is_open else "steps"


def build(name: str, uplink: str, participation: float, downlink: dict) -> Method:
    method = build_method({"name": name}, UPLINKS[uplink], downlink, work=work_of(name))
    method.check(federation(), participation)
    return method


def build_both_ways(name: str, uplink: str, participation: float) -> Method:
    """With the first compressed downlink that it takes. Raises the ConfigError of the last one."""
    *others, last = DOWNLINKS
    for downlink in others:
        try:
            return build(name, uplink, participation, UPLINKS[downlink])
        except ConfigError:
            continue
    return build(name, uplink, participation, UPLINKS[last])


def assert_names_what_fits(name: str, refusal: str) -> None:
    """A refusal is of use only if it says what to do instead."""
    known = {*compressors(), *method_names()} - {name}
    named = set(re.findall(r"[a-z0-9-]+", refusal)) & known
    assert named or "participation" in refusal or "remove the keys" in refusal, refusal


@pytest.mark.parametrize("both_ways", [False, True], ids=["dense", "both-ways"])
@pytest.mark.parametrize("participation", [1.0, 0.5], ids=["all", "half"])
@pytest.mark.parametrize(("name", "uplink"), list(product(method_names(), UPLINKS)))
def test_a_method_keeps_its_promise(name: str, uplink: str, participation: float, both_ways: bool) -> None:
    try:
        method = build_both_ways(name, uplink, participation) if both_ways else build(name, uplink, participation, {})
    except ConfigError as refusal:
        assert_names_what_fits(name, str(refusal))
        return
    theory = theory_of(method, participation)
    if theory is not None:
        KEEPS[theory.promise](method.at(theory.rate), theory, participation)


def theory_of(method: Method, participation: float = 1.0) -> Theory | None:
    """None for a method that says that it has none and that its step is to be tuned."""
    try:
        return method.theory(problem().constants, federation(), participation)
    except ConfigError as silence:
        if not re.search("has no theory.* tune", str(silence)):
            raise
        return None


def play(method: Method, participation: float, until: float = 0.0, rounds: int = ROUNDS) -> Trace:
    return run(method, problem(), rounds, participation=participation, until=until, audit=False)


def settled(trace: Trace) -> float:
    return statistics.median(trace.errors[-len(trace.errors) // 4 :])


def with_larger_steps(method: Method, theory: Theory, participation: float, until: float = 0.0) -> Iterator[Trace]:
    """Runs at 4, 16, ... times theory's step, which may be tiny; a floor would grow with it. Ends at divergence."""
    rate = theory.rate
    while True:
        rate *= 4
        trace = play(method.at(rate), participation, until, MOST_ROUNDS if until else ROUNDS)
        assert not trace.diverged, f"at a step of {rate}, and what was expected has not been seen at smaller ones"
        yield trace


def keeps_linear(method: Method, theory: Theory, participation: float) -> None:
    """It contracts at least as declared; and what it has not reached by then, it reaches with larger steps."""
    trace = play(method, participation, REACHED)
    rounds = len(trace.uplink_bytes)
    assert trace.errors[-1] <= max(REACHED, SLACK * (1 - theory.contraction) ** rounds)
    assert trace.errors[-1] < FALLEN
    if REACHED < trace.errors[-1] < math.sqrt(REACHED):  # on its way
        trace = play(method, participation, REACHED, MOST_ROUNDS)
    larger = with_larger_steps(method, theory, participation, REACHED)
    while trace.errors[-1] > REACHED:
        trace = next(larger)


def keeps_neighbourhood(method: Method, theory: Theory, participation: float) -> None:
    """It comes down to its floor, and stays there, for the functions' minimisers lie apart."""
    trace = play(method, participation)
    assert settled(trace) < FALLEN
    if theory.floor is not None:
        distance = float(((problem().x0 - problem().minimiser) ** 2).sum())
        assert settled(trace) <= FLOOR_SLACK * theory.floor / distance + SLACK * (1 - theory.contraction) ** ROUNDS
    larger = with_larger_steps(method, theory, participation)
    while settled(trace) > NEAR:
        trace = next(larger)
    assert settled(trace) > EXACT


def keeps_nothing(method: Method, theory: Theory, participation: float) -> None:
    """It may do anything, but it says nothing that is not so: no contraction, no floor."""
    assert theory.contraction == 0
    assert theory.floor is None
    play(method, participation)


KEEPS = {
    Promise.LINEAR: keeps_linear,
    Promise.NEIGHBOURHOOD: keeps_neighbourhood,
    Promise.NOTHING: keeps_nothing,
}


def test_local_steps_and_minibatches_are_promised_no_more_than_a_neighbourhood() -> None:
    for name in method_names():
        if issubclass(find_method(name), Estimator):
            method = build_method({"name": name}, work="minibatch")
            assert isinstance(method, Descent)
            theory = theory_of(method)
            assert theory is None or theory.promise is not Promise.LINEAR, name


def test_a_promise_states_a_step_that_can_be_set_and_does_not_depend_on_it() -> None:
    for name in method_names():
        method = build_method({"name": name}, work=work_of(name))
        theory = theory_of(method)
        if theory is not None:
            assert 0 < theory.rate < math.inf, name
            assert 0 <= theory.contraction < 1, name
            assert theory_of(method.at(theory.rate)) == theory, name
