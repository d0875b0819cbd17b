"""Saddle-point problems with known answers, float64: what the methods for variational inequalities are measured on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from strategies.base import Local
from strategies.problems import gaussian
from strategies.prox import Prox
from strategies.theory import Constants
from thinwire.layout import Entry, Layout
from thinwire.random import Key, choose


@dataclass(frozen=True)
class BilinearOracle:
    """A device's operator, the mean of J components; an Oracle.

    ``F_mj(x, y) = (A_mj y + lam x + a_mj, -A_mj^T x + lam y - b_mj)``, that is ``(grad_x g, -grad_y g)`` of
    ``g(x, y) = x^T A y + a^T x + b^T y + lam/2 |x|^2 - lam/2 |y|^2``.
    """

    matrices: Tensor  # A_mj, of shape (J, half, half)
    offsets: Tensor  # (a_mj, -b_mj), of shape (J, 2 half)
    lam: float
    batch: int = 0  # components of a minibatch; 0: all
    steps: int = 1  # local steps
    rate: float = 0.1  # of a local step

    def full(self, z: Tensor) -> Tensor:
        """The mean over all components."""
        return self._operator(z, *self._mean)

    def sample(self, z: Tensor, key: Key) -> Tensor:
        """The mean over the components that the key draws, without replacement."""
        if not self.batch:
            return self.full(z)
        rows = torch.from_numpy(choose(key, len(self.matrices), self.batch))
        return self._operator(z, self.matrices[rows].mean(0), self.offsets[rows].mean(0))

    def local(self, z: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        """Plain steps along the operator."""
        moved = z
        for step in range(self.steps):
            operator = self.sample(moved, key.at(f"step{step}"))
            moved = moved - self.rate * (operator if correction is None else operator + correction)
        return Local(z - moved, self.steps, self.rate)

    def lipschitz(self) -> float:
        """Of the operator: |A + lam I| as a skew block matrix, sqrt(|A|^2 + lam^2)."""
        return _lipschitz(self._mean[0], self.lam)

    def component_lipschitz(self) -> list[float]:
        """Of each component."""
        return [_lipschitz(matrix, self.lam) for matrix in self.matrices]

    @cached_property
    def _mean(self) -> tuple[Tensor, Tensor]:
        return self.matrices.mean(0), self.offsets.mean(0)

    def _operator(self, z: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
        x, y = z.chunk(2)
        return torch.cat([matrix @ y, -(matrix.T @ x)]) + self.lam * z + offset


@dataclass(frozen=True)
class SaddleProblem:
    """Find z* with ``<F(z*), z - z*> + h(z) - h(z*) >= 0`` for all z. The error is ``|z - z*|^2 / |z0 - z*|^2``.

    A vector z is the tensor ``x``, which descends, and then ``y``, which ascends.
    """

    oracles: tuple[BilinearOracle, ...]
    x0: Tensor  # z0
    solution: Tensor  # z*
    prox: Prox | None = None  # of h; None: h = 0

    @cached_property
    def layout(self) -> Layout:
        """x and y, equally long."""
        half = self.x0.numel() // 2
        return Layout((Entry("x", (half,)), Entry("y", (half,))))

    @cached_property
    def constants(self) -> Constants:
        """L of F, L_m of the F_m, mu = lam (the coupling is skew), the spread of the F_m at the solution."""
        own = [oracle.lipschitz() for oracle in self.oracles]
        return self._constants(max(own), _root_mean_square(own))

    @cached_property
    def component_constants(self) -> Constants:
        """With the components' constants in the place of the L_m, as minibatches of one need them."""
        own = [value for oracle in self.oracles for value in oracle.component_lipschitz()]
        return self._constants(max(own), _root_mean_square(own))

    def operator(self, z: Tensor) -> Tensor:
        """F, the mean of the F_m."""
        return torch.stack([oracle.full(z) for oracle in self.oracles]).mean(0)

    def error(self, z: Tensor) -> float:
        """Squared, relative to the start."""
        return float(torch.sum((z - self.solution) ** 2) / torch.sum((self.x0 - self.solution) ** 2))

    def in_batches(self, batch: int) -> "SaddleProblem":
        """The same problem whose ``sample`` draws so many components."""
        return replace(self, oracles=tuple(replace(oracle, batch=batch) for oracle in self.oracles))

    def to(self, dtype: torch.dtype) -> "SaddleProblem":
        """The same problem in another precision: with float32, dense messages cost what they cost in practice."""
        oracles = (replace(o, matrices=o.matrices.to(dtype), offsets=o.offsets.to(dtype)) for o in self.oracles)
        return replace(self, oracles=tuple(oracles), x0=self.x0.to(dtype), solution=self.solution.to(dtype))

    def _constants(self, largest: float, mean: float) -> Constants:
        matrix = torch.stack([oracle.matrices.mean(0) for oracle in self.oracles]).mean(0)
        lam = self.oracles[0].lam
        spread = [float(torch.sum(oracle.full(self.solution) ** 2)) for oracle in self.oracles]
        return Constants(_lipschitz(matrix, lam), largest, mean, lam, sum(spread) / len(spread))


def bilinear(
    seed: int = 0,
    devices: int = 10,
    half: int = 50,
    lam: float = 0.01,
    prox: Prox | None = None,
    components: int = 1,
    similarity: float = 0.5,
) -> SaddleProblem:
    """Dense positive semidefinite A_m of norm 1, offsets that differ between devices, and a solution that is known.

    ``similarity`` in [0, 1) is the part of the A_m that all devices have in common, as those do that sample one source;
    it brings L near the L_m. A point u is drawn and ``z* = prox(u, 1)``, so ``u - z*`` is a subgradient of h at z*; the
    offsets are such that ``F(z*) = z* - u``, and z* solves the problem whatever h is.
    """
    key = Key(seed, "bilinear")
    matrices = _matrices(key.at("matrices"), devices, components, half, similarity)
    heterogeneity = gaussian(key.at("offsets"), devices, components, 2 * half)
    heterogeneity = heterogeneity - heterogeneity.mean((0, 1))
    problem = SaddleProblem((), gaussian(key.at("start"), 2 * half) * 3, torch.zeros(0), prox)
    u = gaussian(key.at("solution"), 2 * half)
    solution = u if prox is None else prox(u, 1.0, problem.layout)
    linear = BilinearOracle(matrices.mean((0, 1))[None], torch.zeros(1, 2 * half, dtype=torch.float64), lam)
    offsets = heterogeneity + (solution - u - linear.full(solution))
    oracles = tuple(BilinearOracle(a, c, lam) for a, c in zip(matrices, offsets, strict=True))
    return replace(problem, oracles=oracles, solution=solution)


def _matrices(key: Key, devices: int, components: int, half: int, similarity: float) -> Tensor:
    """Random, positive semidefinite, a device's mean of norm 1: (devices, components, half, half)."""
    own = _squares(gaussian(key, devices, components, half, half))
    common = _squares(gaussian(key.at("common"), half, half))
    mixed = similarity * common + (1 - similarity) * own
    norms: Tensor = torch.linalg.matrix_norm(mixed.mean(1), 2)
    return mixed / norms[:, None, None, None]


def _squares(roots: Tensor) -> Tensor:
    return roots @ roots.transpose(-1, -2)


def _lipschitz(matrix: Tensor, lam: float) -> float:
    return math.hypot(float(torch.linalg.matrix_norm(matrix, 2)), lam)


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
