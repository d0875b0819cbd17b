"""CX: a few columns of every matrix, and the combinations of them that come nearest to the others."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place
from compressors.directions import orthonormal
from compressors.factors import Matrices, decode_factors, encode_factors, least_bits_of
from compressors.matrices import Matricisation, check_matricisation, flattest, matricise, on_rows
from thinwire.layout import Layout
from thinwire.random import Key, uniforms

Columns = Literal["bf16", "fp32"]

LEAST_EIGENVALUE: dict[Columns, float] = {"bf16": 1 / 16, "fp32": 2.0**-20}
"""Of the Gram matrix of the columns at unit length: where it is below, rounding them would harm their span."""


@dataclass(frozen=True)
class CX(Compressor):
    """Send r columns C of every matrix and the X of least |M - C X|. Contractive with alpha = r / min(m, n) in mean.

    alpha is that of the worst matrix, exact (attained by equal singular values). Columns are drawn one by one, with
    probability proportional to the square of their distance from the span of those before: sampling by norms, of what
    is left. With values in "bf16" alpha is smaller by about r / 1000 of itself, and columns too dependent to be rounded
    (an eigenvalue of their normalised Gram matrix below 1/16) are replaced by an orthonormal basis of their span.

    Captures less than ``rsvd`` for the same bytes; for those who want to read the factors, since what travels are
    columns of the matrix itself. Tensors that are no matrix, or too small a one to be halved, are sent whole.

    Source: Deshpande, Rademacher, Vempala, Wang, "Matrix approximation and projective clustering via volume sampling",
    Theory of Computing 2006 (adaptive sampling); Drineas, Mahoney, Muthukrishnan, "Relative-error CUR matrix
    decompositions", SIAM J. Matrix Analysis 2008.
    """

    name: ClassVar[str] = "cx"
    reproducible: ClassVar[bool] = False
    rank: int = 4  # columns of every matrix, 1 to 256
    values: Columns = "bf16"  # how factors and dense tensors travel; "fp32" is unrounded, 8 bytes in a float64 run
    balanced: bool = False  # wide convolutions as (o kh) x (i kw)
    split: tuple[str, ...] = ()  # tensors to be cut into blocks of rows: "pattern of names:blocks"

    def __post_init__(self) -> None:
        check_matricisation(self.rank, self.split)
        if self.values not in LEAST_EIGENVALUE:
            raise ValueError(f"values = {self.values!r}; allowed: {', '.join(LEAST_EIGENVALUE)}")

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and not."""
        return (cls(), cls(2, "fp32"))

    def alpha(self, layout: Layout) -> float:
        """r / min(m, n) of the worst matrix, less what rounding costs.

        With L the least eigenvalue above, rounding C at random costs 2^-16 / L of what is captured, and rounding X to
        the nearest 2^-16 r / L times 4, as sqrt(L) may have lost 2^-7 sqrt(r) by then.
        """
        shorter = max((block.shorter for block in self._matricise(layout).blocks), default=0)
        kept = 1.0 if self.values == "fp32" else (1 - 2.0**-12) * (1 - self.rank * 2.0**-10)
        return kept * (self.rank / shorter if shorter else 1.0)

    def worst(self, layout: Layout) -> Tensor | None:
        """Equal singular values."""
        return flattest(self._matricise(layout), layout.numel) if self.values == "fp32" else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the factors and of the dense values."""
        return least_bits_of(encoded.payload, layout, on_rows)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """C, rounded at random, and the X that fits it."""
        matrices, columns = Matrices.of(x, layout, self._matricise(layout)), key.at("columns")
        pairs = enumerate(zip(matrices.values, matrices.matricisation.blocks, strict=True))
        bases = [
            matrices.x.new_zeros(block.rows, 0) if matrix is None else self._chosen(matrix, columns.at(tensor=i))
            for i, (matrix, block) in pairs
        ]
        return encode_factors(self.name, matrices, bases, self.values, key.at("rounding"), on_rows)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The sum of the outer products of every matrix's factors."""
        return decode_factors(payload, layout, device, on_rows)

    def _matricise(self, layout: Layout) -> Matricisation:
        return matricise(layout, self.rank, self.balanced, self.split)

    def _chosen(self, matrix: Tensor, key: Key) -> Tensor:
        """The columns, or an orthonormal basis of their span."""
        columns = matrix[:, sample_columns(matrix, self.rank, key)]
        unit = columns.double() / columns.double().norm(dim=0)
        least = float(torch.linalg.eigvalsh(unit.T @ unit)[0])
        return columns if least >= LEAST_EIGENVALUE[self.values] else orthonormal(columns)


def sample_columns(matrix: Tensor, count: int, key: Key) -> list[int]:
    """Indices of up to ``count`` columns, by norms of what the ones before leave; fewer if they leave nothing."""
    energies = matrix.double().square().sum(0)
    silence = float(energies.sum()) * torch.finfo(matrix.dtype).eps * 8  # of the sums that are subtracted below
    basis = matrix.new_zeros(matrix.shape[0], 0, dtype=torch.float64)
    chosen: list[int] = []
    for draw in uniforms(key, count):
        sums = energies.cumsum(0).cpu().numpy()
        if sums[-1] <= silence:
            break
        index = min(int(np.searchsorted(sums, draw * sums[-1], side="right")), len(sums) - 1)
        column = matrix[:, index].double()
        for _ in range(2):  # once is not enough to be orthogonal
            column = column - basis @ (basis.T @ column)
        column = column / column.norm().clamp(min=torch.finfo(torch.float64).tiny)
        basis = torch.cat([basis, column[:, None]], dim=1)
        energies = (energies - (column.to(matrix.dtype) @ matrix).double().square()).clamp(min=0)
        energies[index] = 0
        chosen.append(index)
    return chosen
