"""Power: one step of power iteration for every matrix, from a random start or from where the last message ended."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place
from compressors.directions import Directions, energy_of, gaussian, iterate, none_of
from compressors.factors import (
    Factors,
    Matrices,
    check_factors,
    decode_factors,
    encode_factors,
    kept_share,
    least_bits_of,
)
from compressors.matrices import Block, Matricisation, check_matricisation, flattest, matricise
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Power(Compressor):
    """Send M V V^T with V = orth(M^T U) of a thin random U. Contractive with alpha = r / min(m, n) in mean.

    alpha is that of the worst matrix, exact (attained by equal singular values), times about 1 - 2^-15 with values in
    "bf16" and 1 - 2^-10 in "8-bit". Three products with the matrix: the fastest. With ``warm`` U is M V of the message
    before and one more column that is random, and the best r directions are sent: after a few messages about the same
    matrix they are those of ``svd``. Without the random column nothing outside the old directions would be seen again.
    Should they capture less than r / 2 min(m, n) of |M|^2, a random start is taken instead; more than that does not
    hold in every case, so it is the alpha with ``warm``. A lost warm start costs a few messages of lower quality.

    Warm for matrices that change slowly: gradients under EF14, where this is PowerSGD. Under EF21 a warm start gains
    nothing, since what was sent is just what the next difference lacks. Tensors that are no matrix, or too small a one
    to be halved, are sent whole.

    Source: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed
    optimization", NeurIPS 2019. The random column and the restart are our own.
    """

    name: ClassVar[str] = "power"
    reproducible: ClassVar[bool] = False
    rank: int = 4  # directions of every matrix, 1 to 256
    values: Factors = "bf16"  # how factors and dense tensors travel; "fp32" is unrounded, 8 bytes in a float64 run
    warm: bool = False  # start from the directions of the message before
    balanced: bool = False  # wide convolutions as (o kh) x (i kw)
    split: tuple[str, ...] = ()  # tensors to be cut into blocks of rows: "pattern of names:blocks"

    def __post_init__(self) -> None:
        check_matricisation(self.rank, self.split)
        check_factors(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and not, cold and warm."""
        return (cls(2, "fp32"), cls(3, warm=True))

    def alpha(self, layout: Layout) -> float:
        """r / min(m, n) of the worst matrix, half of it with ``warm``, less what rounding costs."""
        shorter = max((block.shorter for block in self._matricise(layout).blocks), default=0)
        captured = self.rank / shorter / (1 + self.warm) if shorter else 1.0
        return captured * kept_share(self.values, self.rank)

    def worst(self, layout: Layout) -> Tensor | None:
        """Equal singular values."""
        exact = self.values == "fp32" and not self.warm
        return flattest(self._matricise(layout), layout.numel) if exact else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the factors and of the dense values."""
        return least_bits_of(encoded.payload, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """V, rounded at random, and the M V that fits it; the warm start is M V of every matrix, unit columns."""
        matrices = Matrices.of(x, layout, self._matricise(layout))
        blocks, start = matrices.matricisation.blocks, key.at("start")
        last = _starts(warm, blocks, matrices.x) if self.warm else None
        found = [
            self._stepped(matrix, block, None if last is None else last[i], start.at(tensor=i), matrices.x)
            for i, (matrix, block) in enumerate(zip(matrices.values, blocks, strict=True))
        ]
        rounding = key.at("rounding")
        encoded = encode_factors(self.name, matrices, [f.basis for f in found], self.values, rounding)
        if not self.warm:
            return encoded
        return replace(encoded, warm=tuple((f.images / f.energies.sqrt()).to(x.dtype) for f in found))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The sum of the outer products of every matrix's factors."""
        return decode_factors(payload, layout, device)

    def _matricise(self, layout: Layout) -> Matricisation:
        return matricise(layout, self.rank, self.balanced, self.split)

    def _stepped(self, matrix: Tensor | None, block: Block, last: Tensor | None, key: Key, like: Tensor) -> Directions:
        """One step from the last directions, or from a random start if there are none or they capture too little."""
        if matrix is None:
            return none_of(block.rows, block.columns, like)
        fresh = gaussian(key, matrix, self.rank + 1)  # one beside the last, the others to start anew: independent
        if last is not None and last.shape[1]:
            unit = fresh[:, :1] / torch.linalg.vector_norm(fresh[:, :1])
            found = iterate(matrix, torch.cat([last[:, : self.rank], unit], dim=1)).first(self.rank)
            if float(found.energies.sum()) >= self.rank / (2 * block.shorter) * energy_of(matrix):
                return found
        return iterate(matrix, fresh[:, 1:]).first(self.rank)


def _starts(warm: Any, blocks: tuple[Block, ...], like: Tensor) -> tuple[Tensor, ...] | None:
    """The warm start if it is one of these matrices: a tensor of two dimensions for each, with as many rows."""
    if not isinstance(warm, tuple) or len(warm) != len(blocks):
        return None
    for last, block in zip(warm, blocks, strict=True):
        if not isinstance(last, Tensor) or last.dim() != 2 or last.shape[0] != block.rows:
            return None
    return tuple(last.to(like) for last in warm)
