"""How many directions each matrix sends: a fixed number, enough of them, or as many as a message has room for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressors.base import Encoded
from compressors.directions import Directions
from compressors.factors import Factors, Matrices, encode_factors
from compressors.matrices import MOST_RANK, Block, Matricisation
from thinwire.random import Key

OVERHEAD_BYTES, TENSOR_BYTES = 128, 4
"""What a message spends besides values, and for each matrix and dense tensor."""
SPENT: dict[Factors, tuple[float, float]] = {"bf16": (1.4, 2.0), "fp32": (3.5, 4.0), "8-bit": (1.05, 1.6)}
"""Bytes of a coded value of a factor, as a rule and at most; twice as many of "fp32" in a float64 run."""


@dataclass(frozen=True)
class RankRule:
    """Where ranks come from. Where they adapt, a matrix sends at most m n / 4 (m + n) directions, and ``most``."""

    rank: int
    energy: float
    budget_bytes: int
    budget_share: float
    most: int = MOST_RANK

    def __post_init__(self) -> None:
        if not 0 <= self.energy < 1:
            raise ValueError(f"energy = {self.energy}; allowed: 0 (off), or above 0 and below 1")
        if self.budget_bytes < 0:
            raise ValueError(f"budget_bytes = {self.budget_bytes}; allowed: 0 (off) or more")
        if not 0 <= self.budget_share <= 1:
            raise ValueError(f"budget_share = {self.budget_share}; allowed: 0 (off), or above 0 and at most 1")
        if not 1 <= self.most <= MOST_RANK:
            raise ValueError(f"most_rank = {self.most}; allowed: 1 to {MOST_RANK}")
        if sum(map(bool, (self.energy, self.budget_bytes, self.budget_share))) > 1:
            raise ValueError("energy, budget_bytes and budget_share: allowed: one of them, or none")

    @property
    def has_budget(self) -> bool:
        """Whether the matrices share what room there is."""
        return self.budget_bytes > 0 or self.budget_share > 0

    @property
    def adapts(self) -> bool:
        """Whether ranks depend on the vector."""
        return self.energy > 0 or self.has_budget

    @property
    def least(self) -> int:
        """The rank that must halve a matrix, or else it travels dense: 2 where ranks adapt, so that 1 saves 3/4."""
        return 2 if self.adapts else self.rank

    def limit(self, block: Block) -> int:
        """The most directions that a matrix sends."""
        return min(self.most, block.numel // (4 * block.length)) if self.adapts else self.rank

    def largest(self, matricisation: Matricisation) -> int:
        """The most directions of any matrix."""
        return max((self.limit(block) for block in matricisation.blocks), default=1)

    def first(self, energies: Tensor, total: float, block: Block) -> int:
        """How many of a matrix's directions to take before any budget."""
        limit = min(self.limit(block), len(energies))
        if not self.energy:
            return limit
        captured = energies[:limit].cumsum(0).cpu().numpy()
        return min(limit, 1 + int(np.searchsorted(captured, self.energy * total)))

    def alpha(self, matricisation: Matricisation, numel: int, values: Factors, certain: bool) -> float:
        """The share of energy that is captured, surely if r directions surely capture r / min(m, n), else in mean.

        Directions are taken in the order of energy per scalar, so those that fit in a budget have at least their share
        of what all of them would capture; the first one is taken in any case.
        """
        blocks = matricisation.blocks
        if not blocks:
            return 1.0
        share = min(self.limit(block) / block.shorter for block in blocks)
        if self.energy:
            return min(self.energy, share) if certain else self.energy * share
        if not self.has_budget:
            return share
        lengths = [block.length for block in blocks]
        room = min(self._room(matricisation, numel, width, _spent(values, width)[1]) for width in (4, 8))
        everything = sum(self.limit(block) * block.length for block in blocks)
        return share * min(1.0, max(room - max(lengths), min(lengths)) / everything)

    def _bytes(self, numel: int, width: int) -> float:
        """The budget, for a vector of scalars of that width."""
        return self.budget_bytes or self.budget_share * numel * width

    def _room(self, matricisation: Matricisation, numel: int, width: int, spent: float) -> float:
        """How many scalars of factors fit, for that many bytes spent on each."""
        head = OVERHEAD_BYTES + TENSOR_BYTES * (len(matricisation.blocks) + len(matricisation.dense))
        return (self._bytes(numel, width) - head) / spent - matricisation.dense_count

    def encode(
        self, codec: str, matrices: Matrices, found: Sequence[Directions], values: Factors, rounding: Key | None = None
    ) -> Encoded:
        """The payload of the directions found, or of those that fit in the budget.

        How short coded values are is known only afterwards: a guess that was too bold is mended twice, and then taken
        for the most.
        """
        if not self.has_budget:
            return encode_factors(codec, matrices, [f.basis for f in found], values, rounding)
        shape, x = matrices.matricisation, matrices.x
        allowed, (spent, most) = self._bytes(x.numel(), x.element_size()), _spent(values, x.element_size())
        for attempt in range(4):
            room = self._room(shape, x.numel(), x.element_size(), spent if attempt < 3 else most)
            ranks = _greedy(found, shape.blocks, matrices.exponents, room)
            bases = [f.basis[:, :rank] for f, rank in zip(found, ranks, strict=True)]
            encoded = encode_factors(codec, matrices, bases, values, rounding)
            if encoded.payload.size <= allowed:
                break
            spent = min(most, 1.01 * spent * encoded.payload.size / max(allowed, 1))
        return encoded


def _spent(values: Factors, width: int) -> tuple[float, float]:
    rule, most = SPENT[values]
    return (2 * rule, 2 * most) if values == "fp32" and width == 8 else (rule, most)


def _greedy(found: Sequence[Directions], blocks: Sequence[Block], exponents: Sequence[int], room: float) -> list[int]:
    """Ranks: the directions of most energy per scalar, one by one, until the next one of a matrix does not fit."""
    gains = []
    for i, (f, block, exponent) in enumerate(zip(found, blocks, exponents, strict=True)):
        gains += [(e + 2 * exponent, i) for e in torch.log2(f.energies / block.length).tolist()]
    ranks, used, closed = [0] * len(found), 0, set()
    for _, i in sorted(gains, key=lambda gain: -gain[0]):
        length = blocks[i].length
        if i in closed or (used and used + length > room):
            closed.add(i)
            continue
        ranks[i], used = ranks[i] + 1, used + length
    return ranks
