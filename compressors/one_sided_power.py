"""One-sided power: only one factor of every matrix travels, for the side whose basis everybody knows."""

import struct
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, DTYPES, Compressor, Encoded, Payload, Place, require
from compressors.factor_plan import Plan
from compressors.factors import (
    Factors,
    Matrices,
    check_factors,
    decode_projections,
    encode_projections,
    least_bits_of,
)
from compressors.gram_schmidt import subspaces
from compressors.matrices import Matricisation, Side, check_matricisation, matricise, on_columns, on_rows
from compressors.values import alpha_of
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<B")  # index in SIDES
SIDES: tuple[Side, ...] = (on_columns, on_rows)


@dataclass(frozen=True)
class OneSidedPower(Compressor):
    """Send M Q in even rounds and M^T P in odd ones, for bases that all know. Contractive with r / max(m, n) in mean.

    That is a bound: r/n in even rounds and r/m in odd ones, exact for every m x n matrix, times 1 - 2^-16 with values
    in "bf16" and 0.9996 in "8-bit". PowerSGD takes the basis of one half of its step from the aggregate of the half
    before. A decoder here keeps no state from round to round, so the basis is drawn anew from the key that all clients
    of the round share: this is a projection onto a random subspace whose side alternates, and nothing is iterated. What
    remains of the method is one linear map for all clients, whose messages may be added before they are decoded, and
    half the scalars of ``power``, r m or r n in turn. It captures far less than ``power`` where energy is concentrated.
    Tensors that are no matrix, or too small a one to be halved, are sent whole.

    Source: Vogels, Karimireddy, Jaggi, "Practical low-rank communication compression in decentralized deep learning",
    NeurIPS 2020 (PowerGossip), for the alternating sides; the bases from a key are our own.
    """

    name: ClassVar[str] = "one-sided-power"
    reproducible: ClassVar[bool] = False
    rank: int = 4  # columns of the basis, 1 to 256
    values: Factors = "bf16"  # how factors and dense tensors travel; "fp32" is unrounded, 8 bytes in a float64 run
    balanced: bool = False  # wide convolutions as (o kh) x (i kw)
    split: tuple[str, ...] = ()  # tensors to be cut into blocks of rows: "pattern of names:blocks"

    def __post_init__(self) -> None:
        check_matricisation(self.rank, self.split)
        check_factors(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and not."""
        return (cls(), cls(2, "fp32"))

    def alpha(self, layout: Layout) -> float:
        """r / max(m, n) of the worst matrix times the values' alpha."""
        longer = max((max(block.rows, block.columns) for block in self._matricise(layout).blocks), default=0)
        return (self.rank / longer if longer else 1.0) * alpha_of(self.values)

    @property
    def independent(self) -> bool:
        """All clients project onto the same subspace."""
        return False

    @property
    def linear(self) -> bool:
        """With unrounded values."""
        return self.values == "fp32"

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the coefficients and of the dense values."""
        return least_bits_of(_content(encoded.payload), layout, SIDES[encoded.payload.parameters[0]])

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The coefficients of the round's side."""
        matrices, index = Matrices.of(x, layout, self._matricise(layout)), key.round % 2
        ranks = [0 if matrix is None else self.rank for matrix in matrices.values]
        blocks, side = matrices.matricisation.blocks, SIDES[index]
        bases = subspaces(key.shared().at("basis"), blocks, ranks, side, x.dtype, x.device)
        encoded = encode_projections(self.name, matrices, bases, side, self.values)
        parameters = PARAMETERS.pack(index) + encoded.payload.parameters
        return replace(encoded, payload=replace(encoded.payload, parameters=parameters))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The coefficients times the bases of the shared key."""
        index, dtype = payload.parameters[:1], DTYPES[payload.dtype]
        require(index in (b"\0", b"\1"), f"unknown side {index!r}")
        side = SIDES[index[0]]

        def drawn(plan: Plan) -> list[Tensor]:
            return subspaces(key.shared().at("basis"), plan.matricisation.blocks, plan.ranks, side, dtype, device)

        return decode_projections(_content(payload), layout, device, side, drawn)

    def _matricise(self, layout: Layout) -> Matricisation:
        return matricise(layout, self.rank, self.balanced, self.split)


def _content(payload: Payload) -> Payload:
    """The payload without its first parameter."""
    return replace(payload, parameters=payload.parameters[PARAMETERS.size :])
