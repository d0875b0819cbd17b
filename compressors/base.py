"""The contract of a compressor: tensors in, one payload out, and the decoded bits beside it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout
from thinwire.random import Key

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
DTYPE_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Payload:
    """One compressed vector, self-describing: a decoder needs no option of the compressor that made it."""

    codec: str  # name of the compressor, a key of the registry
    dtype: str  # dtype of the vector: "float32" or "float64"
    parameters: bytes  # small and fixed-size per codec: scales, counts, flags (little-endian)
    streams: tuple[bytes, ...]  # entropy-coded columns

    @property
    def size(self) -> int:
        """Bytes of content, without the packet's framing."""
        return len(self.parameters) + sum(len(stream) for stream in self.streams)


@dataclass(frozen=True)
class Place:
    """A client's place in a cohort, for compressors that divide the work (PermK)."""

    index: int
    count: int


ALONE = Place(0, 1)


@dataclass(frozen=True)
class Encoded:
    """What ``encode`` returns; ``decoded`` equals, bit for bit, what a receiver decodes from ``payload``."""

    payload: Payload
    decoded: Tensor
    warm: Any = None  # state a compressor may be given back next time; losing it costs efficiency, never correctness


@dataclass(frozen=True)
class Compressor(ABC):
    """A compression operator C(x). A frozen dataclass whose fields are its options; no memory inside.

    Error, shift and momentum belong to the method. A new compressor is one new file in ``compressors/``; the registry,
    the configuration, the command line, the wire and the contract tests find it by its ``name``.
    """

    name: ClassVar[str]
    reproducible: ClassVar[bool] = True
    """The same bytes from the same vector on every device, thread count and version; False where ``encode`` reduces
    in floating point or calls LAPACK. What is *decoded* from given bytes is the same everywhere in any case.
    A compressor around others speaks for itself alone: its bytes are as reproducible as theirs."""

    def omega(self, layout: Layout) -> float | None:
        """If unbiased: the constant of E|C(x)-x|^2 <= omega |x|^2. None where E C(x) = x does not hold."""
        return None

    def alpha(self, layout: Layout) -> float | None:
        """If contractive: the constant of E|C(x)-x|^2 <= (1-alpha)|x|^2, in (0, 1]. None where it does not hold."""
        return None

    @property
    def independent(self) -> bool:
        """Whether clients err independently, so that the error of their mean falls with their number, as omega/n.

        Not with an option ``shared`` (one mask for all clients), and not if messages add up; as little if that is so of
        a compressor inside.
        """
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        inside = [value for value in options.values() if isinstance(value, Compressor)]
        alike = self.linear or options.get("shared") is True
        return not alike and all(compressor.independent for compressor in inside)

    def joint_omega(self, layout: Layout, clients: float) -> float | None:
        """If unbiased: the constant of E|mean C(a_i) - mean a_i|^2 <= J mean |a_i|^2 over so many clients of a round.

        omega / clients where they err independently, omega where they err alike. Clients of unequal weights count as
        fewer, not a whole number of them.
        """
        omega = self.omega(layout)
        return omega / clients if omega is not None and self.independent else omega

    @property
    def codecs(self) -> frozenset[str]:
        """The codec names that its payloads may carry; a receiver refuses any other.

        A compressor around others names all of them, "scaled(natural)" (``compressors.nested.codecs_around``).
        """
        return frozenset({self.name})

    @property
    def linear(self) -> bool:
        """Whether, under one key, C(a) + C(b) is C(a + b) up to the rounding of the sums, for messages of all clients.

        Then the values of messages may be added before they are decoded (on the way, under secure aggregation), and
        the sum of n messages is as long as one. Its errors are common to all clients: they do not average out.
        """
        return False

    def support(self, layout: Layout, key: Key) -> NDArray[np.int64] | None:
        """The entries outside of which every client's message of the key's round is zero, distinct; None: no such set.

        Of a mask that all clients share. A sum of messages then travels as these entries alone.
        """
        return None

    @staticmethod
    def positions(payload: Payload, layout: Layout, key: Key) -> NDArray[np.int64] | None:
        """Where the values of a message stand, in the order in which they travel; None if it keeps every entry.

        For compressors that keep some entries as they are, or unbiased times a factor, and drop the rest. The values
        are the last stream, and are not looked at: another compressor may carry them. Raises WireError, as ``decode``.
        """
        return None

    def worst(self, layout: Layout) -> Tensor | None:
        """A vector (float64) on which omega, or else 1 - alpha, is attained: the constant is exact. None: a bound."""
        return None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """The fewest bits that any code could spend on the symbols of this message; None where nobody knows.

        ``compressors.bounds`` has the terms: log2 C(d, k) for places, the empirical entropy for symbols. Measured by
        the contract tests (within 5 per cent and 128 bytes) and shown by the benchmark.
        """
        return None

    @classmethod
    def examples(cls) -> "tuple[Compressor, ...]":
        """Instances that the contract tests run; override when the defaults do not show every branch."""
        return (cls(),)

    @abstractmethod
    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """Compress a flat vector of ``layout`` (float32 or float64, any device).

        ``key`` names the randomness of this one message. Raises ConfigError on a non-finite entry, naming its tensor.
        """

    @staticmethod
    @abstractmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The vector that ``payload`` stands for: flat, ``layout.numel`` long, of the payload's dtype, on ``device``.

        Uses portable arithmetic only, so that every node gets the same bits. Raises WireError on anything wrong,
        before memory beyond the layout's size is taken.
        """


class NonFinite(ConfigError):  # noqa: N818  a condition of the input, named like one
    """A vector to be compressed holds NaN or infinity; the client declines the round and keeps its state."""


def check_input(x: Tensor, layout: Layout) -> None:
    """Refuse vectors of a wrong shape or dtype (our own bug) and non-finite ones (NonFinite, naming the tensor)."""
    assert x.shape == (layout.numel,), f"vector of shape {tuple(x.shape)} for a layout of {layout.numel}"
    assert x.dtype in DTYPE_NAMES, f"dtype {x.dtype}"
    if x.numel() and not math.isfinite(x.sum().item()):  # one cheap pass; a sum may also overflow, so look closer
        finite = torch.isfinite(x)
        if not bool(finite.all()):
            index = int((~finite).nonzero()[0, 0])
            raise NonFinite(f"tensor {layout.name_at(index)!r} holds a non-finite value ({x[index].item()})")


def require(condition: bool, message: str) -> None:
    """Raise WireError unless the condition holds; for decoders."""
    if not condition:
        raise WireError(message)
