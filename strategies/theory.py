"""What the papers promise: the step from a problem's constants, and what comes of it."""

from dataclasses import dataclass
from enum import Enum


class Promise(Enum):
    """What a method does on a strongly convex (strongly monotone) problem at the step of its theory."""

    LINEAR = "linear"  # the error falls by a constant factor a round, to the solution
    NEIGHBOURHOOD = "neighbourhood"  # so it does, but only to a floor that grows with the step
    NOTHING = "nothing"  # it may stall anywhere, or diverge


@dataclass(frozen=True)
class Constants:
    """Of ``f = (1/n) sum f_i``, or of the operator ``F = (1/n) sum F_i`` of a variational inequality.

    ``strategies.problems`` know theirs; ``thinwire lab constants`` estimates those of a task.
    """

    L: float  # smoothness of f; Lipschitz constant of F
    L_max: float  # largest L_i
    L_mean: float  # sqrt(mean L_i^2), the papers' L with a tilde
    mu: float = 0.0  # strong convexity, or strong monotonicity; 0: none
    heterogeneity: float = 0.0  # (1/n) sum |grad f_i(x*)|^2, squared gradient units

    @property
    def kappa(self) -> float:
        """L / mu."""
        return self.L / self.mu


@dataclass(frozen=True)
class Theory:
    """The largest step that is proven (or, where ``proven`` is False, verified by experiment) and what it brings."""

    promise: Promise
    rate: float  # gamma
    contraction: float = 0.0  # rho >= 0: the expected error falls at least by 1 - rho a round; 0: not stated
    floor: float | None = None  # of E|x - x*|^2 for NEIGHBOURHOOD, where a bound is known; not relative
    proven: bool = True
