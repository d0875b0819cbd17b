"""The directions of a matrix that carry most of its energy, found by subspace iteration.

From a Gaussian start of s columns the s directions capture at least s / min(m, n) of |M|^2 in expectation, however many
iterations follow: what a singular direction gets of the span, its leverage, grows with its singular value, and all of
them get s. The best r of them, then, capture at least r / min(m, n).

Source: Halko, Martinsson, Tropp, "Finding structure with randomness: probabilistic algorithms for constructing
approximate matrix decompositions", SIAM Review 2011.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thinwire.random import Key


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions V of a matrix M (m x n), those that capture most of |M|^2 first."""

    energies: Tensor  # |M v|^2 of each, float64
    basis: Tensor  # V, n x s
    images: Tensor  # M V, m x s, orthogonal columns, float64

    def first(self, count: int) -> "Directions":
        """The first ``count`` of them, fewer if the others carry rounding noise only."""
        noise = max(torch.finfo(self.basis.dtype).eps ** 2, torch.finfo(torch.float64).eps)
        heard = int((self.energies > noise * self.energies.sum()).sum())
        kept = min(count, heard)
        return Directions(self.energies[:kept], self.basis[:, :kept], self.images[:, :kept])


def none_of(rows: int, columns: int, like: Tensor) -> Directions:
    """No direction at all, as of a zero matrix."""
    basis, images = like.new_zeros(columns, 0), like.new_zeros(rows, 0, dtype=torch.float64)
    return Directions(images.new_zeros(0), basis, images)


def iterate(matrix: Tensor, start: Tensor, powers: int = 0) -> Directions:
    """The directions in the span of (M^T M)^powers M^T start, ``start`` being m x s with s <= min(m, n)."""
    basis = orthonormal(matrix.T @ start)
    for _ in range(powers):
        basis = orthonormal(matrix.T @ orthonormal(matrix @ basis))
    images = (matrix @ basis).double()
    energies, turn = torch.linalg.eigh(images.T @ images)
    turn = turn.flip(1)
    return Directions(energies.flip(0).clamp(min=0), basis @ turn.to(basis.dtype), images @ turn)


def orthonormal(columns: Tensor) -> Tensor:
    """As many orthonormal columns, whose span holds theirs, whatever their rank: Householder's reflections, float64."""
    basis: Tensor = torch.linalg.qr(columns.double()).Q
    return basis.to(columns.dtype)


def gaussian(key: Key, like: Tensor, columns: int) -> Tensor:
    """Standard normals, as many rows as ``like``, on its device and in its dtype; no receiver needs them."""
    random = np.random.Generator(np.random.Philox(key=np.frombuffer(key.digest(), "<u8")))
    return torch.from_numpy(random.standard_normal((like.shape[0], columns), np.float32)).to(like)


def energy_of(matrix: Tensor) -> float:
    """|M|^2."""
    return float(torch.linalg.vector_norm(matrix)) ** 2
