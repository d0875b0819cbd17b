"""Problems with known answers, float64: what the methods are measured on without any host."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.base import Local
from strategies.theory import Constants
from thinwire.layout import Layout
from thinwire.random import Key, choose, uniforms

Residual = Callable[[Tensor, Tensor], Tensor]
"""The derivative of a loss by its prediction: (predictions, targets) to derivatives."""


def square(predictions: Tensor, targets: Tensor) -> Tensor:
    """Of half the squared error."""
    return predictions - targets


def logistic_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Of log(1 + exp(-prediction * target)), targets -1 or 1."""
    return -targets * torch.sigmoid(-targets * predictions)


@dataclass(frozen=True)
class LinearModel:
    """``f_i(x) = scale * sum_j loss(<a_j, x>, y_j) + lam/2 |x|^2 + rough * sum_l x_l^2/(1+x_l^2)``; an Oracle."""

    features: Tensor  # rows a_j
    targets: Tensor
    residual: Residual
    scale: float
    lam: float = 0.0
    rough: float = 0.0  # weight of the non-convex regulariser
    batch: int = 0  # rows of a minibatch; 0: all
    steps: int = 1  # local gradient steps
    rate: float = 0.1  # of a local step

    def full(self, x: Tensor) -> Tensor:
        """The gradient over all rows."""
        return self._gradient(x, self.features, self.targets)

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The gradient over the rows that the key draws, without replacement."""
        if not self.batch:
            return self.full(x)
        return self.at_rows(x, torch.from_numpy(choose(key, len(self.targets), self.batch)))

    def at_rows(self, x: Tensor, rows: Tensor) -> Tensor:
        """The gradient over these rows (int64) as if they were all."""
        return self._gradient(x, self.features[rows], self.targets[rows])

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None, memory: Any = None) -> Local:
        """Plain gradient steps, which remember nothing."""
        z = x
        for step in range(self.steps):
            gradient = self.sample(z, key.at(f"step{step}"))
            z = z - self.rate * (gradient if correction is None else gradient + correction)
        return Local(x - z, self.steps, self.rate)

    def _gradient(self, x: Tensor, features: Tensor, targets: Tensor) -> Tensor:
        inner = self.scale * len(self.targets) / len(targets)
        gradient = inner * (features.T @ self.residual(features @ x, targets)) + self.lam * x
        return gradient + self.rough * 2 * x / (1 + x * x) ** 2 if self.rough else gradient


@dataclass(frozen=True)
class FiniteSum:
    """``f = (1/n) sum f_i``. The error is ``|x-x*|^2/|x0-x*|^2``, or ``|grad f|^2`` where no minimiser is known."""

    oracles: tuple[LinearModel, ...]
    x0: Tensor
    smoothness: tuple[float, ...]  # L_i
    L: float
    mu: float = 0.0
    minimiser: Tensor | None = None

    @cached_property
    def layout(self) -> Layout:
        """One flat tensor."""
        return Layout.flat(self.x0.numel())

    @property
    def L_max(self) -> float:  # noqa: N802  the papers' letter
        """The largest L_i."""
        return max(self.smoothness)

    @property
    def L_mean(self) -> float:  # noqa: N802
        """``sqrt(mean L_i^2)``, the papers' L with a tilde."""
        return float(np.sqrt(np.mean(np.square(self.smoothness))))

    @cached_property
    def constants(self) -> Constants:
        """What the theory of a method asks for."""
        if self.minimiser is None:
            return Constants(self.L, self.L_max, self.L_mean, self.mu)
        own = [float(torch.sum(oracle.full(self.minimiser) ** 2)) for oracle in self.oracles]
        return Constants(self.L, self.L_max, self.L_mean, self.mu, float(np.mean(own)))

    def gradient(self, x: Tensor) -> Tensor:
        """Of f."""
        return torch.stack([oracle.full(x) for oracle in self.oracles]).mean(0)

    def error(self, x: Tensor) -> float:
        """Squared and relative to the start where the minimiser is known."""
        if self.minimiser is None:
            return float(torch.sum(self.gradient(x) ** 2))
        return float(torch.sum((x - self.minimiser) ** 2) / torch.sum((self.x0 - self.minimiser) ** 2))


def gaussian(key: Key, *shape: int) -> Tensor:
    """Standard normals, float64, the same on every version of NumPy (Box-Muller on keyed uniforms)."""
    count = int(np.prod(shape))
    draws = uniforms(key, 2 * count)
    radius = np.sqrt(-2.0 * np.log1p(-draws[:count]))
    values: NDArray[np.float64] = radius * np.cos(2.0 * np.pi * draws[count:])
    return torch.from_numpy(values.reshape(shape))


def ridge(seed: int = 0, clients: int = 10, rows: int = 100, numel: int = 80, lam: float = 2.0) -> FiniteSum:
    """Ridge regression, ``f_i = |A_i x - y_i|^2/2 + lam/2 |x|^2`` with the rows of A shared out equally."""
    key = Key(seed, "ridge")
    features = gaussian(key.at("features"), rows, numel)
    targets = features @ gaussian(key.at("truth"), numel) * 10 + gaussian(key.at("noise"), rows)
    eye = torch.eye(numel, dtype=torch.float64)
    hessian = features.T @ features / clients + lam * eye
    minimiser = torch.linalg.solve(hessian, features.T @ targets / clients)
    spectrum = torch.linalg.eigvalsh(hessian)
    oracles = _share(features, targets, clients, residual=square, scale=1.0, lam=lam)
    smoothness = tuple(float(torch.linalg.matrix_norm(o.features, 2) ** 2) + lam for o in oracles)
    x0 = gaussian(key.at("start"), numel) * 10**0.5
    return FiniteSum(oracles, x0, smoothness, float(spectrum[-1]), float(spectrum[0]), minimiser)


def quadratic(seed: int = 0, clients: int = 10, numel: int = 40, kappa: float = 20.0) -> FiniteSum:
    """``f_i = |D (x - b_i)|^2/2``: equal curvatures between 1/kappa and 1, minimisers b_i far apart."""
    key = Key(seed, "quadratic")
    roots = torch.logspace(0.0, -0.5, numel, base=kappa, dtype=torch.float64)
    centres = gaussian(key.at("centres"), clients, numel)
    oracles = tuple(LinearModel(torch.diag(roots), roots * centre, square, 1.0) for centre in centres)
    x0 = gaussian(key.at("start"), numel)
    return FiniteSum(oracles, x0, (1.0,) * clients, 1.0, 1.0 / kappa, centres.mean(0))


def logistic(
    seed: int = 0, clients: int = 20, rows: int = 2000, numel: int = 60, kappa: float = 100.0, rough: float = 0.0
) -> FiniteSum:
    """``logistic_regression`` on drawn rows, whose centres differ by client."""
    key = Key(seed, "logistic")
    centres = gaussian(key.at("centres"), clients, numel) / 2
    features = gaussian(key.at("features"), rows, numel) + centres.repeat_interleave(rows // clients, 0)
    margins = features @ gaussian(key.at("truth"), numel) / numel**0.5 + gaussian(key.at("noise"), rows)
    return logistic_regression(features, torch.sign(margins), clients, kappa, rough)


def logistic_regression(
    features: Tensor, targets: Tensor, clients: int, kappa: float = 100.0, rough: float = 0.0
) -> FiniteSum:
    """The mean logistic loss over rows that are shared out equally, with an l2 term that makes its condition kappa.

    ``features`` (rows, numel) float64, ``targets`` -1 or 1. With ``rough`` the regulariser is that weight times
    ``sum x_l^2/(1+x_l^2)`` instead: not convex, and no minimiser is known.
    """
    rows, numel = features.shape
    curvature = float(torch.linalg.eigvalsh(features.T @ features / (4 * rows))[-1])
    lam = 0.0 if rough else curvature / (kappa - 1)
    options: dict[str, Any] = {"residual": logistic_loss, "scale": clients / rows, "lam": lam, "rough": rough}
    oracles = _share(features, targets, clients, **options)
    own = [float(torch.linalg.matrix_norm(o.features, 2) ** 2) * o.scale / 4 + lam + 2 * rough for o in oracles]
    problem = FiniteSum(oracles, torch.zeros(numel, dtype=torch.float64), tuple(own), curvature + lam + 2 * rough, lam)
    if rough:
        return problem
    return FiniteSum(oracles, problem.x0, problem.smoothness, problem.L, lam, _newton(problem, features))


def top1_example(start: float = 1.0) -> FiniteSum:
    """Three clients on which Top-1 without feedback diverges: ``f_i = <a_i,x>^2 + |x|^2/4`` (Beznosikov et al.)."""
    rows = torch.tensor([[-3.0, 2.0, 2.0], [2.0, -3.0, 2.0], [2.0, 2.0, -3.0]], dtype=torch.float64)
    oracles = tuple(LinearModel(row[None], torch.zeros(1).double(), square, 2.0, lam=0.5) for row in rows)
    spectrum = torch.linalg.eigvalsh(2 * rows.T @ rows / 3 + 0.5 * torch.eye(3).double())
    x0 = torch.full((3,), start, dtype=torch.float64)
    return FiniteSum(oracles, x0, (34.5,) * 3, float(spectrum[-1]), float(spectrum[0]), torch.zeros(3).double())


def _share(features: Tensor, targets: Tensor, clients: int, **options: Any) -> tuple[LinearModel, ...]:
    """Equal consecutive shares of the rows."""
    parts = zip(features.chunk(clients), targets.chunk(clients), strict=True)
    return tuple(LinearModel(a, y, **options) for a, y in parts)


def _newton(problem: FiniteSum, features: Tensor) -> Tensor:
    """The minimiser of a logistic regression to the last bits."""
    x, eye = problem.x0, torch.eye(problem.x0.numel(), dtype=torch.float64)
    for _ in range(30):
        slope = torch.sigmoid(features @ x)
        hessian = (features.T * (slope * (1 - slope))) @ features / len(features) + problem.mu * eye
        step = torch.linalg.solve(hessian, problem.gradient(x))
        x = x - step
        if torch.max(torch.abs(step)) <= 1e-15 * torch.max(torch.abs(x)):
            break
    return x
