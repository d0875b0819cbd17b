"""Golden payloads: ``python tests/compressors/golden_codecs.py NAME...`` rewrites tests/golden/codecs/NAME.json.

Without a name, those of all compressors. Do so only with a change of the format that is meant, and say so in the
changelog: old checkpoints and peers break.
"""

import hashlib
import json
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressors import Compressor, Encoded, Payload, registry
from thinwire.layout import Entry, Layout
from thinwire.random import Key, noise
from thinwire.wire.codec import parse_codec

FOLDER = Path(__file__).parent.parent / "golden" / "codecs"
LAYOUT = Layout((Entry("weight", (40, 40)), Entry("bias", (50,)), Entry("head", (40, 8)), Entry("scale", ())))
KEY = Key(2024, "golden", round=5, client=1, direction="up")
LIBRARIES = ("zstandard", "pcodec", "constriction")


def vector(dtype: torch.dtype) -> Tensor:
    """Cubes of uniforms: heavy-tailed, and by integers and products only, so the same everywhere."""
    words = noise(Key(1, "golden vector"), LAYOUT.numel).view(np.int32).astype(np.float64) * 2.0**-31
    return torch.from_numpy(words * words * words).to(dtype)


def digest(decoded: Tensor) -> str:
    """What the decoded bytes are compared by."""
    return hashlib.blake2b(decoded.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def cases() -> list[tuple[str, Compressor, torch.dtype]]:
    """Every example of every compressor in both dtypes, by name."""
    examples = [example for name in sorted(registry()) for example in registry()[name].examples()]
    return [
        (f"{example!r} {dtype}", example, dtype) for example in examples for dtype in (torch.float32, torch.float64)
    ]


def record(encoded: Encoded) -> dict[str, object]:
    """A payload and its decoded digest as JSON."""
    payload = encoded.payload
    streams = [stream.hex() for stream in payload.streams]
    shown = {"codec": payload.codec, "dtype": payload.dtype, "parameters": payload.parameters.hex()}
    return {**shown, "streams": streams, "decoded": digest(encoded.decoded)}


@cache
def golden() -> dict[str, dict[str, object]]:
    """The recorded payloads by case, each with the versions of the libraries that wrote it."""
    files = [json.loads((FOLDER / f"{name}.json").read_text()) for name in sorted(registry()) if recorded(name)]
    return {case: {**entry, "libraries": f["libraries"]} for f in files for case, entry in f["payloads"].items()}


def recorded(name: str) -> bool:
    """Whether the compressor of that name has a file."""
    return (FOLDER / f"{name}.json").exists()


def payload_of(entry: dict) -> Payload:
    """The payload of a record."""
    streams = tuple(bytes.fromhex(stream) for stream in entry["streams"])
    return Payload(entry["codec"], entry["dtype"], bytes.fromhex(entry["parameters"]), streams)


def decoded_digests() -> dict[str, str]:
    """What this machine decodes from the recorded payloads."""
    found = {}
    for name, entry in golden().items():
        payload = payload_of(entry)
        kind = registry()[parse_codec(payload.codec).name]
        found[name] = digest(kind.decode(payload, LAYOUT, KEY))
    return found


def write(names: list[str]) -> None:
    """Record anew, one file per compressor."""
    FOLDER.mkdir(exist_ok=True)
    libraries = {name: version(name) for name in LIBRARIES}
    for name in names:
        chosen = [case for case in cases() if case[1].name == name]
        payloads = {label: record(c.encode(vector(dtype), LAYOUT, KEY)) for label, c, dtype in chosen}
        (FOLDER / f"{name}.json").write_text(
            json.dumps({"libraries": libraries, "payloads": payloads}, indent=1) + "\n"
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["decode"]:
        print(json.dumps(decoded_digests()))
    else:
        write(sys.argv[1:] or sorted(registry()))
