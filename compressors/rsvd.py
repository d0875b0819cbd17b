"""Randomised SVD: nearly the best approximation of a low rank, by a few products with a thin matrix."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place
from compressors.directions import Directions, energy_of, gaussian, iterate, none_of
from compressors.factors import Factors, Matrices, check_factors, decode_factors, kept_share, least_bits_of
from compressors.matrices import Block, Matricisation, check_matricisation, flattest, matricise
from compressors.ranks import RankRule
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class RSVD(Compressor):
    """Send nearly the best approximation of rank r of every matrix. Contractive with alpha = r / min(m, n) in mean.

    alpha is that of the worst matrix, exact (attained by equal singular values), times about 1 - 2^-15 with values in
    "bf16" and 1 - 2^-10 in "8-bit". With one power iteration it captures what ``svd`` does to within a few per cent,
    the less the faster the singular values fall, in time proportional to the vector: the choice for matrices with
    min(m, n) above 256.

    With ``energy`` e each matrix sends just enough directions to capture e of it, at least 1 and at most ``most_rank``
    or m n / 4 (m + n): alpha is e times the share of the most. With a budget the directions of most energy per scalar
    are sent while there is room: alpha is the share of the most, times the room in relation to all of them. Tensors
    that are no matrix, or too small a one to be halved, are sent whole.

    Source: Halko, Martinsson, Tropp, "Finding structure with randomness: probabilistic algorithms for constructing
    approximate matrix decompositions", SIAM Review 2011, algorithms 4.4 and 5.1.
    """

    name: ClassVar[str] = "rsvd"
    reproducible: ClassVar[bool] = False
    rank: int = 4  # directions of every matrix, 1 to 256, unless they adapt
    values: Factors = "bf16"  # how factors and dense tensors travel; "fp32" is unrounded, 8 bytes in a float64 run
    oversampling: int = 4  # columns of the sketch beyond the rank
    powers: int = 1  # power iterations, two more products each
    energy: float = 0.0  # above 0: the share of each matrix's energy to capture, below 1
    budget_bytes: int = 0  # above 0: the most bytes of a message
    budget_share: float = 0.0  # above 0: the same, as a share of the uncompressed vector's
    most_rank: int = 32  # where ranks adapt: the most directions of a matrix, which the sketch is drawn for
    balanced: bool = False  # wide convolutions as (o kh) x (i kw)
    split: tuple[str, ...] = ()  # tensors to be cut into blocks of rows: "pattern of names:blocks"

    def __post_init__(self) -> None:
        check_matricisation(self.rank, self.split)
        check_factors(self.values)
        if not 0 <= self.oversampling <= 256:
            raise ValueError(f"oversampling = {self.oversampling}; allowed: 0 to 256")
        if not 0 <= self.powers <= 16:
            raise ValueError(f"powers = {self.powers}; allowed: 0 to 16")
        self._rule()

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Fixed and unrounded, and with a budget."""
        return (cls(2, "fp32", powers=0), cls(budget_share=0.3))

    def alpha(self, layout: Layout) -> float:
        """The share that is captured of the worst matrix, less what rounding costs."""
        shape, rule = self._matricise(layout), self._rule()
        captured = rule.alpha(shape, layout.numel, self.values, certain=False)
        return captured * kept_share(self.values, rule.largest(shape))

    def worst(self, layout: Layout) -> Tensor | None:
        """Equal singular values."""
        exact = self.values == "fp32" and not self._rule().adapts
        return flattest(self._matricise(layout), layout.numel) if exact else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the factors and of the dense values."""
        return least_bits_of(encoded.payload, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """V, rounded at random, and the U S that fits it."""
        matrices, rule = Matrices.of(x, layout, self._matricise(layout)), self._rule()
        pairs = zip(matrices.values, matrices.matricisation.blocks, strict=True)
        sketch = key.at("sketch")
        found = [self._sketched(m, b, rule, sketch.at(tensor=i), matrices.x) for i, (m, b) in enumerate(pairs)]
        return rule.encode(self.name, matrices, found, self.values, key.at("rounding"))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The sum of the outer products of every matrix's factors."""
        return decode_factors(payload, layout, device)

    def _rule(self) -> RankRule:
        return RankRule(self.rank, self.energy, self.budget_bytes, self.budget_share, self.most_rank)

    def _matricise(self, layout: Layout) -> Matricisation:
        return matricise(layout, self._rule().least, self.balanced, self.split)

    def _sketched(self, matrix: Tensor | None, block: Block, rule: RankRule, key: Key, like: Tensor) -> Directions:
        """The leading directions among those of a sketch."""
        if matrix is None:
            return none_of(block.rows, block.columns, like)
        columns = min(rule.limit(block) + self.oversampling, block.shorter)
        found = iterate(matrix, gaussian(key, matrix, columns), self.powers)
        return found.first(rule.first(found.energies, energy_of(matrix), block))
