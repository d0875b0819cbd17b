"""What the experiments with shifted compression adapt to their problem: shifts of the solution, and GDCI's eta."""

from dataclasses import replace

from strategies.base import Method
from strategies.dcgd_star import DCGDStar, optimal_shifts
from strategies.descent import Descent
from strategies.gdci import GDCI, best_eta
from strategies.problems import FiniteSum
from strategies.unbiased import joint_omega
from strategies.vr_gdci import VRGDCI
from thinwire.lab.experiment import Measured, federation_of
from thinwire.lab.precision import Single


def solved(method: Method, problem: Measured, rate: float | None) -> Method:
    """DCGD-STAR with the clients' gradients at the solution, which only an experiment knows."""
    assert isinstance(method, Descent)
    assert isinstance(method.estimator, DCGDStar)
    assert isinstance(problem, Single)
    assert isinstance(problem.inner, FiniteSum)
    assert problem.inner.minimiser is not None
    shifts = tuple(shift.float() for shift in optimal_shifts(problem.inner.oracles, problem.inner.minimiser))
    return replace(method, estimator=replace(method.estimator, shifts=shifts))


def paper_eta(method: Method, problem: Measured, rate: float | None) -> Method:
    """GDCI or VR-GDCI with gamma = 1/mu, as in the paper: eta is mu times the rate."""
    assert isinstance(method, (GDCI, VRGDCI))
    if rate is not None:
        return replace(method, eta=min(1.0, problem.constants.mu * rate))
    shifted = 6 if isinstance(method, VRGDCI) else 2
    noise = shifted * joint_omega(method.compressor, federation_of(problem, 0))
    return replace(method, eta=best_eta(noise, problem.constants))
