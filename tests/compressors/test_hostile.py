"""Hostile bytes: always WireError or a valid vector, and never much memory."""

import os
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import fuzz_codecs
import pytest
import torch
import zstandard
from compressors_kit import KEY, gauss, instances, label, with_stream

from compressors import Expectation, decode
from compressors.natural import Natural
from compressors.top_k import TopK
from thinwire.errors import WireError
from thinwire.layout import Layout
from thinwire.wire.packet import pack, unpack


@pytest.mark.parametrize("compressor", instances(), ids=label)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mutated_payloads_decode_or_are_refused(compressor, dtype):
    _, refused = fuzz_codecs.attack(compressor, 600, dtype)
    assert refused > 50


def test_mutated_payloads_take_no_memory():
    script = Path(fuzz_codecs.__file__)
    paths = os.pathsep.join([str(script.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(script), "300"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000, "kB"


def refused(payload, compressor, layout):
    """Decoding raises WireError and takes less than 16 bytes an entry and a little."""
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(payload, Expectation(layout, torch.float32, compressor.codecs), KEY)
        assert tracemalloc.get_traced_memory()[1] < 16 * layout.numel + 500_000
    finally:
        tracemalloc.stop()


def test_a_frame_that_promises_gigabytes_is_refused_before_it_is_opened():
    layout = Layout.flat(10_000)
    payload = Natural().encode(torch.from_numpy(gauss(10_000)).float(), layout, KEY).payload
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    stream = b"\x02" + struct.pack("<I", len(bomb)) + bomb
    refused(with_stream(payload, 0, stream), Natural(), layout)
    lying = bytearray(bomb)
    lying[4:9] = b"\xa0" + struct.pack("<I", 2**32 - 1)
    refused(with_stream(payload, 0, b"\x02" + struct.pack("<I", len(lying)) + bytes(lying)), Natural(), layout)


@pytest.mark.parametrize("count", [0, 99, 101, 10_001, 2**31, 2**32 - 1])
def test_a_wrong_count_of_indices_is_refused(count):
    layout, compressor = Layout.flat(10_000), TopK()
    payload = compressor.encode(torch.from_numpy(gauss(10_000)).float(), layout, KEY).payload
    parameters = payload.parameters[:1] + struct.pack("<I", count) + payload.parameters[5:]
    refused(replace(payload, parameters=parameters), compressor, layout)


def test_values_that_are_not_finite_are_refused():
    layout, compressor = Layout.flat(300), TopK(0.01, "fp32")
    payload = compressor.encode(torch.ones(300), layout, KEY).payload
    for bits in (b"\x00\x00\x00\xff", b"\x00\x00\x80\xff", b"\x01\x00\x00\xff"):
        rows = b"".join(bytes([byte]) * 3 for byte in bits)
        refused(with_stream(payload, 1, bytes(4) + rows), compressor, layout)
    huge = payload.parameters[:5] + struct.pack("<Bh", 0, 200)  # bf16 values times 2^199
    refused(
        replace(payload, parameters=huge, streams=(payload.streams[0], b"\x00\x00" + b"\x7f" * 6)), compressor, layout
    )


def test_hostile_packets_are_refused():
    payload = TopK().encode(torch.from_numpy(gauss(3_000)).float(), Layout.flat(3_000), KEY).payload
    data = pack({"update": payload})
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1 << (index % 8)
        with pytest.raises(WireError):
            unpack(bytes(changed), type(payload), 2 * len(data))
        with pytest.raises(WireError):
            unpack(data[:index], type(payload), len(data))
