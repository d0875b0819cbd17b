"""Constants estimated from gradients alone agree with those that are known."""

from dataclasses import dataclass

import pytest
import torch
from strategies_kit import the_ridge
from torch import Tensor

from strategies.constants import estimate, hessian
from strategies.problems import FiniteSum, LinearModel, gaussian, logistic, quadratic, square, top1_example
from thinwire.errors import ConfigError
from thinwire.random import Key

TOLERANCE = 1e-2  # that of ``estimate``


@pytest.mark.parametrize("problem", [the_ridge(), the_ridge(1), quadratic(), top1_example()])
def test_curvatures_of_a_quadratic_are_found_to_the_tolerance(problem):
    found, known = estimate(problem.oracles, problem.x0), problem.constants
    for name in ("L", "L_max", "L_mean", "mu"):
        assert getattr(found, name) == pytest.approx(getattr(known, name), rel=TOLERANCE)
    assert known.L * (1 - 1e-9) <= found.L  # rounding of differences; else it leans to the safe side
    assert found.mu <= known.mu * (1 + 1e-9)


@pytest.mark.parametrize("problem", [the_ridge(), quadratic(), logistic()])
def test_heterogeneity_is_that_at_the_minimiser(problem):
    found = estimate(problem.oracles, problem.x0)
    assert found.heterogeneity == pytest.approx(problem.constants.heterogeneity, rel=TOLERANCE)


def test_clients_that_agree_have_no_heterogeneity():
    oracle = top1_example().oracles[0]
    found = estimate([oracle, oracle], torch.ones(3, dtype=torch.float64))
    assert found.heterogeneity < 1e-12


def test_logistic_regression_is_as_smooth_as_its_bound_where_it_starts():
    problem = logistic()
    found = estimate(problem.oracles, problem.x0)  # at 0 every slope is 1/4: the bound is attained
    assert pytest.approx(problem.L, rel=TOLERANCE) == found.L
    assert found.L_max == pytest.approx(problem.L_max, rel=TOLERANCE)
    assert found.mu >= problem.mu  # the regulariser alone, a lower bound everywhere


def test_weights_are_those_of_the_sum():
    problem = quadratic()
    weights = tuple((i + 1) / 55 for i in range(10))
    found = estimate(problem.oracles, problem.x0, weights=weights)
    centres = [oracle.targets / torch.diag(oracle.features) for oracle in problem.oracles]
    minimiser = torch.stack([p * centre for p, centre in zip(weights, centres, strict=True)]).sum(0)
    own = [p * float(torch.sum(o.full(minimiser) ** 2)) for p, o in zip(weights, problem.oracles, strict=True)]
    assert found.heterogeneity == pytest.approx(sum(own), rel=TOLERANCE)


def model_of(curvatures: list[float]) -> LinearModel:
    roots = torch.tensor(curvatures, dtype=torch.float64).sqrt()
    return LinearModel(torch.diag(roots), torch.zeros(len(curvatures), dtype=torch.float64), square, 1.0)


@dataclass(frozen=True)
class Saddle:
    """x^2/2 - 2 y^2: curvature of both signs."""

    def full(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, -4.0], dtype=x.dtype)


@dataclass(frozen=True)
class Single:
    """An oracle that computes in double precision and answers in single."""

    inner: LinearModel

    def full(self, x: Tensor) -> Tensor:
        return self.inner.full(x.double()).float()


def test_a_flat_direction_and_a_negative_curvature_are_no_convexity():
    x0 = torch.ones(3, dtype=torch.float64)
    assert estimate([model_of([2.0, 1.0, 0.0])], x0).mu == 0
    assert estimate([model_of([2.0, 1.0, 1e-13])], x0).mu == 0  # lost in the rounding of the gradients
    assert estimate([model_of([2.0, 1.0, 1e-6])], x0).mu == pytest.approx(1e-6, rel=0.01)
    found = estimate([Saddle()], torch.ones(2, dtype=torch.float64), most_steps=0)
    assert found.mu == 0
    assert pytest.approx(4.0, rel=TOLERANCE) == found.L


def test_single_precision_finds_what_its_rounding_lets_it():
    problem = the_ridge()

    found = estimate([Single(o) for o in problem.oracles], problem.x0.float())
    assert pytest.approx(problem.L, rel=0.01) == found.L
    assert found.mu == pytest.approx(problem.mu, rel=0.1)


def test_a_short_search_leans_to_the_safe_side():
    problem: FiniteSum = the_ridge()
    found = estimate(problem.oracles, problem.x0, most_products=6)
    assert found.L >= problem.L
    assert found.mu <= problem.mu


def test_products_are_those_of_the_hessian():
    problem = the_ridge()
    oracle = problem.oracles[3]
    exact = oracle.features.T @ oracle.features + oracle.lam * torch.eye(80, dtype=torch.float64)
    v = torch.full((80,), 80**-0.5, dtype=torch.float64)
    error = hessian(oracle.full, problem.x0)(v) - exact @ v
    assert torch.linalg.vector_norm(error) < 1e-9 * problem.L_max  # eps^(2/3), and sums over rows


def test_what_has_no_curvature_is_refused():
    with pytest.raises(ConfigError, match="curvature"):
        estimate([model_of([0.0, 0.0])], torch.ones(2, dtype=torch.float64))
    with pytest.raises(ConfigError, match="0 oracles"):
        estimate([], torch.ones(2, dtype=torch.float64))


@dataclass(frozen=True)
class Kinked:
    """mean of relu(<a_j, x> - b_j): no curvature anywhere, but 20,000 kinks; on average that of the density of b."""

    features: Tensor
    offsets: Tensor

    def full(self, x: Tensor) -> Tensor:
        active = (self.features @ x > self.offsets).to(x.dtype)
        return self.features.T @ active / len(active)


def test_kinks_count_by_their_density_and_not_by_their_sharpness():
    kinked = Kinked(gaussian(Key(0, "a"), 20_000, 10), gaussian(Key(0, "b"), 20_000))
    found = estimate([kinked], torch.zeros(10, dtype=torch.float64), most_steps=0)
    smooth = (2 * torch.pi) ** -0.5  # the density of b at 0, for features of unit variance
    assert 0.7 * smooth < found.L < 2 * smooth  # a product meets some twenty kinks


@dataclass(frozen=True)
class Steeper:
    """A curvature of 0.01 where it starts and of 1 at the minimiser: descent by the first one diverges."""

    def full(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() > 1, 0.01 * x + 0.99 * x.sign(), x)


def test_a_function_that_is_more_curved_at_its_minimiser_is_as_smooth_as_there():
    found = estimate([Steeper()], torch.full((3,), 5.0, dtype=torch.float64))
    assert found.L == pytest.approx(1.0, rel=TOLERANCE)  # noqa: SIM300
    assert found.mu == pytest.approx(0.01, rel=TOLERANCE)
