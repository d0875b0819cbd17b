"""Subspace: every matrix projected onto a random subspace that the receiver knows from the key."""

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
from compressors.matrices import Matricisation, check_matricisation, flattest, matricise, on_shorter
from compressors.values import alpha_of, omega_of
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<B")  # 1: one subspace for all clients of a round


@dataclass(frozen=True)
class Subspace(Compressor):
    """Send M G for a random orthonormal G (n x r). Unbiased, (n/r) M G G^T, with omega = n/r - 1; or contractive.

    The contractive form M G G^T, with ``biased``, has alpha = r/n in mean. Both are exact for every matrix, n being the
    shorter side of the worst one; with values in "bf16" they are (n/r)(1 + 2^-16) - 1 and (r/n)(1 - 2^-16), in "8-bit"
    (n/r)(1 + 0.0004) - 1 and (r/n)(1 - 0.0004). Only r scalars for each row (or column, if there are fewer rows)
    travel, as the receiver draws G from the key. With ``shared`` all clients of a round use one G: then messages may be
    added before they are decoded, and the error of a mean of clients is that of one. The matrix form of rand-k: cheap,
    and blind to where the energy is; for a contraction ``rsvd`` is far better. Tensors that are no matrix, or too small
    a one to be halved, are sent whole.

    Source: Konecny, McMahan, Yu, Richtarik, Suresh, Bacon, "Federated learning: strategies for improving communication
    efficiency", 2016 (a random factor known to both ends).
    """

    name: ClassVar[str] = "subspace"
    reproducible: ClassVar[bool] = False
    rank: int = 4  # dimensions of the subspace, 1 to 256
    values: Factors = "bf16"  # how M G and dense tensors travel; "fp32" is unrounded, 8 bytes in a float64 run
    shared: bool = False  # one subspace for all clients of a round
    biased: bool = False  # unscaled: contractive instead of unbiased
    balanced: bool = False  # wide convolutions as (o kh) x (i kw)
    split: tuple[str, ...] = ()  # tensors to be cut into blocks of rows: "pattern of names:blocks"

    def __post_init__(self) -> None:
        check_matricisation(self.rank, self.split)
        check_factors(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Both classes, rounded and not, both kinds of key."""
        return (cls(), cls(2, "fp32", shared=True), cls(2, "8-bit", biased=True))

    def omega(self, layout: Layout) -> float | None:
        """(n/r)(1 + w) - 1 of the worst matrix; None if biased."""
        return None if self.biased else (1 + omega_of(self.values)) / self._share(layout) - 1

    def alpha(self, layout: Layout) -> float | None:
        """r/n of the worst matrix times the values' alpha, if biased."""
        return self._share(layout) * alpha_of(self.values) if self.biased else None

    def worst(self, layout: Layout) -> Tensor | None:
        """Any vector of the worst matrix, without rounding."""
        return flattest(self._matricise(layout), layout.numel) if self.values == "fp32" else None

    @property
    def linear(self) -> bool:
        """With one subspace for all clients and unrounded values."""
        return self.shared and self.values == "fp32"

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the coefficients and of the dense values."""
        return least_bits_of(_content(encoded.payload), layout, on_shorter)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The coefficients, times n/r unless biased."""
        matrices = Matrices.of(x, layout, self._matricise(layout))
        blocks = matrices.matricisation.blocks
        ranks = [0 if matrix is None else self.rank for matrix in matrices.values]
        bases = subspaces(_stream(key, self.shared), blocks, ranks, on_shorter, x.dtype, x.device)
        gains = None if self.biased else [block.shorter / self.rank for block in blocks]
        rounding = None if self.biased else key.at("rounding")
        encoded = encode_projections(self.name, matrices, bases, on_shorter, self.values, gains, rounding)
        parameters = PARAMETERS.pack(self.shared) + encoded.payload.parameters
        return replace(encoded, payload=replace(encoded.payload, parameters=parameters))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The coefficients times the subspace of the sender's key."""
        shared, dtype = payload.parameters[:1], DTYPES[payload.dtype]
        require(shared in (b"\0", b"\1"), f"unknown kind of subspace {shared!r}")
        stream = _stream(key, shared == b"\1")

        def drawn(plan: Plan) -> list[Tensor]:
            return subspaces(stream, plan.matricisation.blocks, plan.ranks, on_shorter, dtype, device)

        return decode_projections(_content(payload), layout, device, on_shorter, drawn)

    def _matricise(self, layout: Layout) -> Matricisation:
        return matricise(layout, self.rank, self.balanced, self.split)

    def _share(self, layout: Layout) -> float:
        """r/n of the worst matrix."""
        shorter = max((block.shorter for block in self._matricise(layout).blocks), default=0)
        return self.rank / shorter if shorter else 1.0


def _stream(key: Key, shared: bool) -> Key:
    """The stream of G."""
    return (key.shared() if shared else key).at("subspace")


def _content(payload: Payload) -> Payload:
    """The payload without its first parameter."""
    return replace(payload, parameters=payload.parameters[PARAMETERS.size :])
