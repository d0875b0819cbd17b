"""Mutated payloads: whatever a peer sends decodes to a finite vector of the right size, or raises WireError."""

import resource
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from compressors import Compressor, Expectation, Payload, decode, registry
from thinwire.errors import WireError
from thinwire.layout import Entry, Layout
from thinwire.random import Key

KEY = Key(5, "fuzz", client=0)
LAYOUT = Layout((Entry("weight", (50, 40)), Entry("bias", (40,))))


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """One change: bits, bytes, a cut, a tail, a piece removed or doubled, or nothing left."""
    kind, changed = int(random.integers(9)), bytearray(data)
    at = int(random.integers(len(data))) if data else 0
    if kind < 3 and data:
        for _ in range(kind + 1):
            changed[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    elif kind == 3 and data:
        changed[at] = int(random.choice([0, 1, 127, 128, 255]))
    elif kind == 4:
        del changed[at:]
    elif kind == 5:
        changed += random.bytes(int(random.integers(1, 12)))
    elif kind == 6:
        del changed[at : at + int(random.integers(1, 6))]
    elif kind == 7:
        changed[at:at] = changed[at : at + int(random.integers(1, 40))]
    else:
        changed[at : at + 4] = struct.pack("<I", int(random.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])))
    return bytes(changed)


def mutations(payload: Payload, count: int, seed: int) -> Iterator[Payload]:
    """Payloads with a changed part, and with streams missing, doubled or swapped."""
    random = np.random.Generator(np.random.Philox(seed))
    for i in range(count):
        parts = [payload.parameters, *payload.streams]
        if i % 50 == 0:
            parts = parts[:1] + list(random.permutation(np.array([*parts[1:], b""], dtype=object)))[: i // 50 % 3]
        for _ in range(1 + i % 2):
            at = int(random.integers(len(parts)))
            parts[at] = mutate(parts[at], random)
        yield replace(payload, parameters=parts[0], streams=tuple(parts[1:]))


def attack(compressor: Compressor, count: int, dtype: torch.dtype = torch.float32) -> tuple[int, int]:
    """How many mutations were decoded and how many refused; anything else is an AssertionError or a crash."""
    x = torch.from_numpy(np.random.Generator(np.random.Philox(1)).standard_normal(LAYOUT.numel)).to(dtype)
    payload = compressor.encode(x, LAYOUT, KEY).payload
    expectation, decoded, refused = Expectation(LAYOUT, dtype, compressor.codecs), 0, 0
    for mutated in mutations(payload, count, seed=2):
        try:
            vector = decode(mutated, expectation, KEY)
        except WireError:
            refused += 1
            continue
        assert vector.shape == (LAYOUT.numel,)
        assert vector.dtype == dtype
        assert bool(torch.isfinite(vector).all())
        decoded += 1
    return decoded, refused


def main() -> None:
    """Attack every codec once to load all libraries, then more, and print by how many kB the memory grew."""
    examples = [example for name in sorted(registry()) for example in registry()[name].examples()]
    for example in examples:
        attack(example, 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for example in examples:
        attack(example, int(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main()
