"""Matrix regression with a known answer, float64: what low-rank compressors are measured on without any network."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from strategies.base import Local
from strategies.problems import gaussian
from strategies.theory import Constants
from thinwire.layout import Entry, Layout
from thinwire.random import Key


@dataclass(frozen=True)
class MatrixModel:
    """``f_i(X) = |A_i X - Y_i|_F^2/2 + lam/2 |X|_F^2``; an Oracle of X as a flat vector."""

    features: Tensor  # A_i, of shape (rows of the client, height)
    targets: Tensor  # Y_i, of shape (rows of the client, width)
    lam: float
    steps: int = 1  # local gradient steps
    rate: float = 0.1  # of a local step

    def full(self, x: Tensor) -> Tensor:
        """The gradient."""
        matrix = x.view(self.features.shape[1], -1)
        return (self.features.T @ (self.features @ matrix - self.targets) + self.lam * matrix).reshape(-1)

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The same: there are no minibatches here."""
        return self.full(x)

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None, memory: Any = None) -> Local:
        """Plain gradient steps, which remember nothing."""
        z = x
        for _ in range(self.steps):
            gradient = self.full(z)
            z = z - self.rate * (gradient if correction is None else gradient + correction)
        return Local(x - z, self.steps, self.rate)


@dataclass(frozen=True)
class MatrixRegression:
    """``f = (1/n) sum f_i`` over one matrix. The error is ``|X-X*|_F^2 / |X0-X*|_F^2``."""

    oracles: tuple[MatrixModel, ...]
    x0: Tensor
    minimiser: Tensor
    constants: Constants

    @cached_property
    def layout(self) -> Layout:
        """One matrix, so that its shape is known to compressors."""
        first = self.oracles[0]
        return Layout((Entry("matrix", (first.features.shape[1], first.targets.shape[1])),))

    def error(self, x: Tensor) -> float:
        """Squared, relative to the start."""
        return float(torch.sum((x - self.minimiser) ** 2) / torch.sum((self.x0 - self.minimiser) ** 2))


def matrix_ridge(
    seed: int = 0, clients: int = 8, rows: int = 12, shape: tuple[int, int] = (40, 30), kappa: float = 37.0
) -> MatrixRegression:
    """Ridge regression of a matrix, ``rows`` Gaussian rows of A for each client, of condition kappa by its l2 term.

    The truth is a Gaussian matrix of full rank, so that nothing but the residuals of error feedback is of low rank.
    """
    key, (height, width) = Key(seed, "matrix ridge"), shape
    features = gaussian(key.at("features"), clients * rows, height)
    noise = gaussian(key.at("noise"), clients * rows, width)
    targets = features @ gaussian(key.at("truth"), height, width) + noise
    gram = features.T @ features / clients
    spectrum = torch.linalg.eigvalsh(gram)
    low, high = max(0.0, float(spectrum[0])), float(spectrum[-1])
    lam = max(0.0, (high - kappa * low) / (kappa - 1))
    minimiser = torch.linalg.solve(gram + lam * torch.eye(height).double(), features.T @ targets / clients).reshape(-1)
    parts = zip(features.chunk(clients), targets.chunk(clients), strict=True)
    oracles = tuple(MatrixModel(a, y, lam) for a, y in parts)
    own = torch.tensor([float(torch.linalg.matrix_norm(o.features, 2) ** 2) + lam for o in oracles])
    spread = sum(float(torch.sum(oracle.full(minimiser) ** 2)) for oracle in oracles) / clients
    mean = float(torch.sqrt(torch.mean(own**2)))
    constants = Constants(high + lam, float(own.max()), mean, low + lam, spread)
    x0 = torch.zeros(height * width, dtype=torch.float64)
    return MatrixRegression(oracles, x0, minimiser, constants)
