"""Golden bytes, and the same bits from them whatever the instruction set, threads or device."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import golden_codecs
import pytest
import torch
from compressors_kit import same_bits

from compressors import registry
from thinwire.wire.codec import parse_codec


def test_every_case_is_recorded():
    assert list(golden_codecs.golden()) == [name for name, _, _ in golden_codecs.cases()]


@pytest.mark.parametrize("case", golden_codecs.cases(), ids=lambda case: case[0].replace(" ", ""))
def test_encoding_gives_the_recorded_bits(case):
    name, compressor, dtype = case
    entry = golden_codecs.golden()[name]
    if not compressor.reproducible:  # other machines encode other bits; all of them decode alike
        return
    encoded = compressor.encode(golden_codecs.vector(dtype), golden_codecs.LAYOUT, golden_codecs.KEY)
    assert golden_codecs.digest(encoded.decoded) == entry["decoded"]
    libraries = entry["libraries"]
    if libraries == {library: version(library) for library in libraries}:  # others may code the same symbols otherwise
        assert {**golden_codecs.record(encoded), "libraries": libraries} == entry


def test_the_recorded_payloads_decode_here():
    assert golden_codecs.decoded_digests() == {name: e["decoded"] for name, e in golden_codecs.golden().items()}


@pytest.mark.parametrize(("capability", "threads"), [("default", 1), ("avx2", 2), ("avx512", 1), ("default", 2)])
def test_the_recorded_payloads_decode_to_the_same_bits_on_any_instruction_set(capability, threads):
    script = Path(golden_codecs.__file__)
    paths = os.pathsep.join([str(script.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    setting = {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    command = [sys.executable, str(script), "decode"]
    done = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {name: e["decoded"] for name, e in golden_codecs.golden().items()}


@pytest.mark.cuda
@pytest.mark.parametrize("case", golden_codecs.cases(), ids=lambda case: case[0].replace(" ", ""))
def test_a_gpu_encodes_and_decodes_the_same_bits(case):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, compressor, dtype = case
    x, layout, key = golden_codecs.vector(dtype), golden_codecs.LAYOUT, golden_codecs.KEY
    here, there = compressor.encode(x, layout, key), compressor.encode(x.cuda(), layout, key)
    assert there.payload == here.payload or not case[1].reproducible
    assert there.decoded.device.type == "cuda"
    for encoded in (here, there):
        kind = registry()[parse_codec(encoded.payload.codec).name]
        for device in ("cpu", "cuda"):
            assert same_bits(kind.decode(encoded.payload, layout, key, device).cpu(), encoded.decoded.cpu())
