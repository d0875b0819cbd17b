"""Identity: every entry as it is, the uncompressed yardstick."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, DTYPES, Compressor, Encoded, Payload, Place, check_input, require
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Identity(Compressor):
    """Send x as it is, in the run's dtype. Unbiased with omega = 0 and contractive with alpha = 1, both exact."""

    name: ClassVar[str] = "identity"

    def omega(self, layout: Layout) -> float:
        """Exactly 0."""
        return 0.0

    def alpha(self, layout: Layout) -> float:
        """Exactly 1."""
        return 1.0

    @property
    def independent(self) -> bool:
        """It makes no error."""
        return True

    @property
    def linear(self) -> bool:
        """Sums of vectors are vectors."""
        return True

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The bits of the dtype: nothing is coded."""
        return 8.0 * encoded.decoded.element_size() * layout.numel

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The raw little-endian bytes of x."""
        check_input(x, layout)
        data = x.detach().cpu().contiguous().numpy().tobytes()
        return Encoded(Payload(self.name, DTYPE_NAMES[x.dtype], b"", (data,)), x.detach().clone())

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The bytes as a vector."""
        dtype = DTYPES[payload.dtype]
        require(not payload.parameters and len(payload.streams) == 1, "identity carries one stream and no parameter")
        size = layout.numel * dtype.itemsize
        require(len(payload.streams[0]) == size, f"identity carries {len(payload.streams[0])} bytes; expected {size}")
        values = np.frombuffer(payload.streams[0], dtype=np.dtype(payload.dtype).newbyteorder("<")).copy()
        return torch.from_numpy(values).to(device)
