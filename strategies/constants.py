"""The constants of a problem of which nothing is known but gradients: smoothness, strong convexity, heterogeneity.

Curvatures are extreme eigenvalues of Hessians, found by Lanczos' recurrence on Hessian-vector products, each the
difference of two gradients: Golub, Van Loan, "Matrix computations", 4th edition, 2013, chapter 10. Of the products
that power iteration makes it needs about the square root, for both ends at once, and keeps three vectors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.base import Oracle
from strategies.problems import gaussian
from strategies.theory import Constants
from thinwire.errors import ConfigError
from thinwire.random import Key

Map = Callable[[Tensor], Tensor]


def estimate(
    oracles: Sequence[Oracle],
    x0: Tensor,
    *,
    weights: Sequence[float] = (),
    tolerance: float = 1e-2,
    most_products: int = 100,
    most_steps: int = 200,
    seed: int = 0,
) -> Constants:
    """The constants of ``f = sum p_i f_i``, by ``full`` gradients only; ``weights`` are p_i, equal when empty.

    ``x0`` is flat, on any device. Curvatures are those at x0 and where accelerated descent leads in ``most_steps``,
    whichever is worse; in between f may be more curved, unless it is quadratic. ``tolerance`` is relative; a spectrum
    ends after ``most_products`` in any case, and what is not sharp by then leans to a large L and a small mu. mu is 0
    unless it stands out of the rounding of the gradients, 2e-11 L in float64 and 6e-4 L in float32. The heterogeneity
    is that at the end of the descent. Raises ConfigError where there are no oracles, or no (finite) curvature.
    """
    if not oracles or most_products < 1:
        raise ConfigError(f"{len(oracles)} oracles and {most_products} products; constants need one of each at least")
    problem = _Mean(tuple(oracles), tuple(weights) or (1.0 / len(oracles),) * len(oracles))
    lanczos = _Lanczos(gaussian(Key(seed, "lanczos"), len(x0)).to(x0), tolerance, most_products)
    low, high, own = problem.curvature(x0, lanczos)
    if not 0 < high < math.inf:
        raise ConfigError(f"the curvature at the starting point is {high}; a step follows from a positive, finite one")
    x = _descend(problem, x0, high, tolerance * max(0.0, low) / max(own), most_steps)
    if not torch.equal(x, x0):
        there = problem.curvature(x, lanczos)
        low, high, own = min(low, there[0]), max(high, there[1]), tuple(map(max, own, there[2]))
    gradient, square = problem.moments(x)
    return Constants(
        L=high,
        L_max=max(own),
        L_mean=math.sqrt(sum(share * smooth**2 for share, smooth in zip(problem.shares, own, strict=True))),
        mu=low if low > lanczos.resolution * high else 0.0,
        heterogeneity=max(0.0, square - float(gradient.dot(gradient))),
    )


@dataclass(frozen=True)
class _Lanczos:
    """Looks for extreme eigenvalues of symmetric operators."""

    start: Tensor
    tolerance: float  # relative error at which a value is sharp
    most: int  # products

    @property
    def resolution(self) -> float:
        """Below this share of the largest, eigenvalues drown in the rounding of gradients."""
        return 100 * torch.finfo(self.start.dtype).eps / reach(self.start)

    def ends(self, product: Map, both: bool) -> tuple[float, float]:
        """The smallest and the largest eigenvalue; unless ``both``, only the larger in magnitude is sharp."""
        v, before = self.start / torch.linalg.vector_norm(self.start), torch.zeros_like(self.start)
        diagonal: list[float] = []
        beside: list[float] = []
        ends = np.zeros(2)
        while len(diagonal) < self.most:
            w = product(v)
            back = float(w.dot(before))
            beside[-1:] = [(off + back) / 2 for off in beside[-1:]]  # equal, unless products err: their symmetric part
            w = w - back * before
            diagonal.append(float(w.dot(v)))
            w = w - diagonal[-1] * v
            off = float(torch.linalg.vector_norm(w))
            values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
            errors = off * np.abs(vectors[-1, [0, -1]])  # an eigenvalue lies so near to each
            ends = values[[0, -1]] + errors * (-1, 1)
            if self._sharp(values[[0, -1]], errors, both):
                break
            beside.append(off)
            before, v = v, w / off
        return float(ends[0]), float(ends[1])

    def _sharp(self, values: NDArray[np.float64], errors: NDArray[np.float64], both: bool) -> bool:
        sizes = np.abs(values)
        sharp = errors <= self.tolerance * sizes
        flat = values[0] <= self.resolution * sizes.max()  # and the smallest eigenvalue is no larger: no mu to be found
        return bool(sharp[sizes.argmax()] and (sharp[0] or flat or not both))


@dataclass(frozen=True)
class _Mean:
    """``f = sum p_i f_i``."""

    oracles: tuple[Oracle, ...]
    shares: tuple[float, ...]

    def moments(self, x: Tensor) -> tuple[Tensor, float]:
        """The gradient of f, and ``sum p_i |grad f_i|^2``."""
        mean, square = torch.zeros_like(x), 0.0
        for share, oracle in zip(self.shares, self.oracles, strict=True):
            gradient = oracle.full(x)
            mean += share * gradient
            square += share * float(gradient.dot(gradient))
        return mean, square

    def curvature(self, x: Tensor, lanczos: _Lanczos) -> tuple[float, float, tuple[float, ...]]:
        """Smallest curvature of f, its largest in magnitude, and that of every f_i."""
        low, high = lanczos.ends(hessian(lambda z: self.moments(z)[0], x), both=True)
        own = (lanczos.ends(hessian(oracle.full, x), both=False) for oracle in self.oracles)
        return low, max(-low, high), tuple(max(-a, b) for a, b in own)


def reach(x: Tensor) -> float:
    """How far from x gradients are compared, in units of 1 + |x|: 1e-3, or what the rounding of float32 asks for."""
    return max(1e-3, math.pow(torch.finfo(x.dtype).eps, 1 / 4))


def hessian(gradient: Map, x: Tensor) -> Map:
    """The Hessian at x as a map of unit vectors, by central differences; exact to rounding for a quadratic.

    The points lie far apart rather than near: it takes the mean over the kinks of a network of ReLUs, which over few of
    them would be a large number without meaning.
    """
    step = reach(x) * (1 + float(torch.linalg.vector_norm(x)))
    return lambda v: (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)


def _descend(problem: _Mean, x0: Tensor, smoothness: float, tolerance: float, most_steps: int) -> Tensor:
    """Towards the minimiser, until |grad f| is ``tolerance`` times the clients' own; the best point that was met.

    Nesterov's method, with the restarts of O'Donoghue, Candes, "Adaptive restart for accelerated gradient schemes",
    2015, which need no mu; and with a smaller step from where f turns out to be more curved than it was measured.
    """
    x = y = best = x0
    gradient, square = problem.moments(y)
    size = first = smallest = float(gradient.dot(gradient))
    t = 1.0
    for _ in range(most_steps):
        if size <= max(tolerance**2 * square, torch.finfo(x.dtype).eps ** 1.5 * first):
            break
        ahead = y - gradient / smoothness
        t = 1.0 if float(gradient.dot(ahead - x)) > 0 else t
        following = (1 + math.sqrt(1 + 4 * t * t)) / 2
        moved = ahead + (t - 1) / following * (ahead - x)
        after, square = problem.moments(moved)
        secant = float(torch.linalg.vector_norm(after - gradient) / torch.linalg.vector_norm(moved - y))
        if secant <= 1.1 * smoothness:
            x, y, t, gradient = ahead, moved, following, after
        else:  # or it is not a number
            x = y = best
            t, smoothness, (gradient, square) = 1.0, 2 * smoothness, problem.moments(best)
        size = float(gradient.dot(gradient))
        best, smallest = (y, size) if size < smallest else (best, smallest)
    return best
