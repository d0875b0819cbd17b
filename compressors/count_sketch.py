"""Count-sketch: entries added up in few buckets, each with a random sign."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.hadamard import accelerator
from compressors.powers import check_exponent
from compressors.scope import SCOPES, Part, Scope, check_options, dense_spans, parts, runs_of, with_dense
from compressors.sketching import shift_of, shifted
from compressors.values import Values, check_format, decode_values, encode_values, least_value_bits, omega_of
from thinwire.blocks import each_block
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<dhBB")  # fraction; shift; index in SCOPES; 1 if all clients share the hashes
TILE = 1 << 15  # entries worked on at a time on the CPU, so that they stay in the cache
TILE_ELSEWHERE = 1 << 24
NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class CountSketch(Compressor):
    """Add d entries with random signs into c buckets; an entry is its sign times its bucket. Linear and unbiased.

    omega = ceil(d/c) (1 + w) - 1, exact for w = 0 and never above that of independent hashes, (d-1)/c: the vector is
    cut into stripes of c entries, and each stripe is rotated at random onto the buckets, so that two entries meet with
    probability 1/c at most, and those of one stripe never. w is the omega of the values' random rounding: 0 for "fp32",
    2^-16 for "bf16", 1/8 for "natural"; 0.0004, 0.11 and 5.2 for "8-bit", "4-bit" and "2-bit". Each tensor has
    c = max(1, round(fraction * size)) buckets; the worst counts, and under scope "tensor" tensors below 256 entries are
    sent whole.

    With ``shared`` all clients use the same hashes: with "fp32" the sum of their sketches is the sketch of the sum.
    Several rows and their median would find heavy entries better; but the median is biased and no contraction, so a
    method had nothing to rely on. An entry beyond the finite range is clamped.

    Source: Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", ICALP 2002; Rothchild et al.,
    "FetchSGD", ICML 2020 (in federated learning).
    """

    name: ClassVar[str] = "count-sketch"
    fraction: float = 0.01  # buckets per entry, in (0, 1]
    values: Values = "bf16"  # how buckets travel; "fp32" is unrounded (8 bytes in a float64 run)
    scope: Scope = "tensor"  # a sketch of every tensor, or of the whole vector
    shared: bool = False  # the same hashes for all clients of a round

    def __post_init__(self) -> None:
        check_options(self.fraction, self.scope)
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and exact, both scopes, one's own hashes and shared ones."""
        return (cls(0.1), cls(0.3, "fp32", "global", shared=True))

    @property
    def linear(self) -> bool:
        """With the same hashes for all clients and unrounded values."""
        return self.shared and self.values == "fp32"

    def omega(self, layout: Layout) -> float:
        """ceil(d/c) (1 + w) - 1 of the worst tensor."""
        stripes = [_stripes(part) for part in parts(layout, self.fraction, self.scope)]
        return max(stripes, default=1) * (1 + omega_of(self.values)) - 1

    def worst(self, layout: Layout) -> Tensor | None:
        """The last stripe of the tensor with most stripes: each of its entries meets one of every other stripe."""
        pieces = parts(layout, self.fraction, self.scope)
        if not pieces or self.values != "fp32":
            return None
        part, x = max(pieces, key=_stripes), torch.zeros(layout.numel, dtype=torch.float64)
        x[part.start + (_stripes(part) - 1) * part.keep : part.stop] = 1
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the buckets; the hashes are in the key."""
        runs = runs_of(parts(layout, self.fraction, self.scope), layout, self.scope)
        description, dtype = encoded.payload.parameters[PARAMETERS.size :], encoded.payload.dtype
        return least_value_bits(description, encoded.payload.streams[0], sum(runs), dtype, runs)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The buckets of each tensor, then the dense tensors."""
        check_input(x, layout)
        x, pieces, own = x.detach(), parts(layout, self.fraction, self.scope), key.shared() if self.shared else key
        shift = shift_of(x)
        x = shifted(x, -shift)
        device = accelerator(x.device)
        sketches = [_sketch(x[part.start : part.stop], Hashes(part, own, device)) for part in pieces]
        dense = torch.from_numpy(with_dense(NONE, layout, self.scope)).to(x.device)
        kept = torch.cat([*sketches, x[dense]]).cpu().numpy()
        runs = runs_of(pieces, layout, self.scope)
        description, stream, values = encode_values(kept, self.values, key.at("rounding"), runs)
        parameters = PARAMETERS.pack(self.fraction, shift, SCOPES.index(self.scope), self.shared) + description
        decoded = _estimate(torch.from_numpy(values).to(x.device), layout, pieces, self.scope, shift, own)
        return Encoded(Payload(self.name, DTYPE_NAMES[x.dtype], parameters, (stream,)), decoded)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Every entry's bucket times its sign."""
        require(len(payload.streams) == 1, f"count-sketch of {len(payload.streams)} streams; expected 1")
        require(
            len(payload.parameters) >= PARAMETERS.size, f"count-sketch of {len(payload.parameters)} parameter bytes"
        )
        fraction, shift, scope_index, shared = PARAMETERS.unpack_from(payload.parameters)
        require(0 < fraction <= 1, f"fraction {fraction}; allowed: above 0 and at most 1")
        require(scope_index < len(SCOPES) and shared < 2, f"unknown scope {scope_index} or hashes {shared}")
        check_exponent(shift, payload.dtype)
        scope = SCOPES[scope_index]
        pieces = parts(layout, fraction, scope)
        runs, description = runs_of(pieces, layout, scope), payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[0], sum(runs), payload.dtype, runs)
        own = key.shared() if shared else key
        return _estimate(torch.from_numpy(values).to(device), layout, pieces, scope, shift, own)


def _stripes(part: Part) -> int:
    """How many stripes of c entries a part has, the last one perhaps shorter."""
    return -(-(part.stop - part.start) // part.keep)


class Hashes:
    """Where each stripe of a part meets the buckets, and with which sign.

    Works on NumPy arrays (on the CPU) and on tensors (elsewhere) alike: the same operations, so the same bits.
    """

    def __init__(self, part: Part, key: Key, device: torch.device | None) -> None:
        own, stripes, buckets = key.at("hashes", tensor=part.tensor), _stripes(part), part.keep
        turns = (own.at("turns").words(stripes) % np.uint64(buckets)).astype(np.int64)
        words = own.at("signs").words(-(-stripes * buckets // 64)).astype("<u8").view(np.uint8)
        signs = np.unpackbits(words, count=stripes * buckets, bitorder="little").reshape(stripes, buckets)
        begin = np.arange(0, stripes * buckets, buckets)[:, None]
        self.size, self.buckets, self.device = stripes * buckets, buckets, device
        self.width = max(1, (TILE if device is None else TILE_ELSEWHERE) // stripes)
        self.module: Any = np if device is None else torch
        arrays: list[Any] = [begin, begin - turns[:, None], signs]
        if device is not None:
            arrays = [torch.from_numpy(array).to(device) for array in arrays]
        self.begin, self.turned, self.signs = arrays

    def each(self, work: Callable[[slice, Any], None]) -> None:
        """``work(buckets, entries)`` for ranges of buckets; entries (int64) are those that the stripes have there."""

        def tile(first: int, last: int) -> None:
            bucket = np.arange(first, last) if self.device is None else torch.arange(first, last, device=self.device)
            entry = self.turned + bucket
            work(slice(first, last), self.module.where(entry < self.begin, entry + self.buckets, entry))

        each_block(self.buckets, self.width, tile, fewest=4 if self.device is None else self.buckets + 1)

    def flip(self, values: Any, buckets: slice) -> Any:
        """Values (stripes x buckets) whose sign bit is flipped where it is to be, in place."""
        single, signs = values.itemsize == 4, self.signs[:, buckets]
        if self.device is None:
            kind: Any = np.int32 if single else np.int64
            signs = signs.astype(kind)
        else:
            kind = torch.int32 if single else torch.int64
            signs = signs.to(kind)
        bits = values.view(kind)
        bits ^= signs << (31 if single else 63)
        return values

    def native(self, values: Tensor) -> Any:
        """What the work is done on."""
        return values.numpy() if self.device is None else values


def _sketch(x: Tensor, hashes: Hashes) -> Tensor:
    """The buckets: halves of the stripes are added entry for entry until one is left, the same sum on every device."""
    out = torch.empty(hashes.buckets, dtype=x.dtype, device=x.device)
    padded = torch.zeros(hashes.size, dtype=x.dtype, device=x.device)
    padded[: len(x)] = x
    source, target = hashes.native(padded), hashes.native(out)

    def work(buckets: slice, entries: Any) -> None:
        found = hashes.flip(hashes.module.take(source, entries), buckets)
        left = len(found)
        while left > 1:
            half = left // 2
            found[:half] += found[left - half : left]
            left -= half
        target[buckets] = found[0]

    hashes.each(work)
    return out


def _spread(sketch: Tensor, hashes: Hashes) -> Tensor:
    """Every entry's bucket times its sign, in all stripes."""
    out = torch.empty(hashes.size, dtype=sketch.dtype, device=sketch.device)
    source, target = hashes.native(sketch), hashes.native(out)

    def work(buckets: slice, entries: Any) -> None:
        copies = hashes.module.zeros_like(entries, dtype=source.dtype)
        copies[:] = source[buckets]
        target[entries] = hashes.flip(copies, buckets)

    hashes.each(work)
    return out


def _estimate(values: Tensor, layout: Layout, pieces: list[Part], scope: str, shift: int, key: Key) -> Tensor:
    """The vector: buckets times signs, with the dense tensors as they are, times 2^shift."""
    out, start = torch.empty(layout.numel, dtype=values.dtype, device=values.device), 0
    for part in pieces:
        hashes = Hashes(part, key, accelerator(values.device))
        spread = _spread(values[start : start + part.keep], hashes)
        out[part.start : part.stop] = spread[: part.stop - part.start]
        start += part.keep
    for first, last in dense_spans(layout, scope):
        out[first:last] = values[start : start + last - first]
        start += last - first
    return shifted(out, shift)
