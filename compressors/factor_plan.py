"""What a low-rank payload says of its matrices, in front of their factors."""

from dataclasses import dataclass

import numpy as np

from compressors.base import Payload, require
from compressors.matrices import MOST_RANK, Matricisation, Side, read_matricisation
from thinwire.layout import Layout
from thinwire.wire.coding import pack_symbols, unpack_symbols


@dataclass(frozen=True)
class Plan:
    """How the tensors were seen; of every matrix its rank, and the power of two that its outer products are in."""

    matricisation: Matricisation
    ranks: tuple[int, ...]
    exponents: tuple[int, ...]

    @staticmethod
    def read(payload: Payload, layout: Layout) -> "Plan":
        """The plan in the first two streams. Raises WireError on factors that would outweigh their matrix."""
        kinds = unpack_symbols(payload.streams[0], 1, len(layout.entries))[0]
        matricisation = read_matricisation(layout, kinds.tobytes())
        rows = unpack_symbols(payload.streams[1], 4, len(matricisation.blocks))
        table = np.ascontiguousarray(rows.reshape(2, 2, -1).transpose(0, 2, 1)).reshape(-1).view("<i2").reshape(2, -1)
        ranks, exponents = table.tolist()
        most = 2 * (np.finfo(payload.dtype).maxexp - 3)
        for block, rank, exponent in zip(matricisation.blocks, ranks, exponents, strict=True):
            fits = 0 <= rank <= MOST_RANK and rank * block.length <= block.numel
            require(fits, f"rank {rank} of a matrix of {block.rows} x {block.columns}")
            require(abs(exponent) <= most, f"exponent {exponent}; {payload.dtype} has up to {most}")
        return Plan(matricisation, tuple(ranks), tuple(exponents))

    def pack(self) -> tuple[bytes, bytes]:
        """One byte per tensor; per matrix two of its rank and two of its exponent, low and high bytes apart."""
        table = np.array([self.ranks, self.exponents], "<i2").view(np.uint8).reshape(2, -1, 2)
        rows = np.ascontiguousarray(table.transpose(0, 2, 1)).reshape(4, -1)
        return pack_symbols([np.frombuffer(self.matricisation.kinds, np.uint8)]), pack_symbols(list(rows))

    def shapes(self, side: Side, of_bases: bool) -> list[tuple[int, int]]:
        """Of all bases, or of all coefficients."""
        pairs = zip(self.matricisation.blocks, self.ranks, strict=True)
        return [(block.rows if side(block) == of_bases else block.columns, rank) for block, rank in pairs]
