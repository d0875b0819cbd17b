"""What the contract tests share: the instances, the vectors, and a decode as a receiver does it."""

from dataclasses import replace

import numpy as np
import torch

from compressors import Compressor, Encoded, Expectation, Payload, decode, registry
from thinwire.layout import Entry, Layout
from thinwire.random import Key
from thinwire.wire.packet import pack, unpack

KEY = Key(7, "test", round=3, client=2, direction="up")
MANY = Layout(
    (Entry("a.weight", (40, 30)), Entry("a.bias", (30,)), Entry("b", ()), Entry("c", (0, 4)), Entry("d", (999,)))
)
DTYPES = (torch.float32, torch.float64)


def instances() -> list[Compressor]:
    """Every example of every registered compressor."""
    return [example for name in sorted(registry()) for example in registry()[name].examples()]


def label(compressor: Compressor) -> str:
    """A short test id."""
    return repr(compressor).replace(" ", "")


def over_the_wire(encoded: Encoded, layout: Layout, compressor: Compressor, key: Key = KEY) -> torch.Tensor:
    """Pack, unpack, validate and decode, as a receiver that expects this compressor."""
    data = pack({"update": encoded.payload})
    payload = unpack(data, Payload, len(data))["update"]
    assert payload == encoded.payload
    return decode(payload, Expectation(layout, encoded.decoded.dtype, compressor.codecs), key)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equality that tells 0 from -0."""
    return a.dtype == b.dtype and a.shape == b.shape and a.cpu().numpy().tobytes() == b.cpu().numpy().tobytes()


def gauss(count: int, seed: int = 0) -> np.ndarray:
    """Standard normals (float64)."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(count)


def vectors(count: int) -> dict[str, torch.Tensor]:
    """The five shapes of ALGORITHMS.md: each breaks another kind of mistake (float64)."""
    heavy = gauss(count, 1) / np.maximum(np.abs(gauss(count, 2)), 1e-3)
    spike = 1e-4 * gauss(count, 3)
    spike[count // 3] = 1.0
    signs = np.sign(gauss(count, 4))
    return {
        "gauss": torch.from_numpy(gauss(count)),
        "heavy tail": torch.from_numpy(heavy),
        "flat": torch.from_numpy(np.ones(count)),
        "spike": torch.from_numpy(spike),
        "4/3 flat": torch.from_numpy(signs * 4 / 3),
    }


def edges(layout: Layout, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Vectors at the ends of the range of a dtype."""
    count, info = layout.numel, torch.finfo(dtype)
    noise = torch.from_numpy(gauss(count, 5)).to(dtype)
    wide = torch.from_numpy(np.ldexp(gauss(count, 6), np.arange(count) % 200 - 100)).to(dtype)
    return {
        "zero": torch.zeros(count, dtype=dtype),
        "minus zero": -torch.zeros(count, dtype=dtype),
        "denormal": torch.round(noise * 300) * info.smallest_normal * info.eps,
        "tiny": noise * info.smallest_normal,
        "largest": torch.sign(noise) * info.max,
        "huge": torch.clamp(noise, -0.9, 0.9) * info.max,
        "wide": wide,
        "one value": torch.where(torch.arange(count) == count - 1, -3.0, 0.0).to(dtype),
    }


def with_stream(payload: Payload, index: int, data: bytes) -> Payload:
    """The payload with one stream replaced."""
    streams = list(payload.streams)
    streams[index] = data
    return replace(payload, streams=tuple(streams))
