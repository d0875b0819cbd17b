"""IDX files (the format of MNIST): found in a folder, read with every size checked before anything is allocated."""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from thinwire.errors import ConfigError

NAME = re.compile(r"(?P<set>.+)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?")
BYTES = 0x08  # the type code of unsigned bytes
MOST_BYTES = 4 << 30

Pair = tuple[Path, Path]


def find_pairs(folder: Path) -> dict[str, Pair]:
    """The (images, labels) files of each set (``train``, ``t10k``, ...) in a folder.

    Raises ConfigError when the folder is not there, holds no set, or a set lacks one of its files.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; task.path must name the one that holds the IDX files")
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir(), reverse=True):  # of NAME and NAME.gz, NAME wins
        match = NAME.fullmatch(file.name)
        if match:
            found.setdefault(match["set"], {})[match["kind"]] = file
    if not found:
        raise ConfigError(f"{folder} holds no IDX files; expected names like train-images-idx3-ubyte.gz")
    for name, files in found.items():
        for kind in ("images", "labels"):
            if kind not in files:
                raise ConfigError(
                    f"{folder} lacks the {kind} of {name!r}; expected a name like {name}-{kind}-idx*-ubyte"
                )
    return {name: (files["images"], files["labels"]) for name, files in found.items()}


def read_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, height, width) and labels (n), n at least 1. Raises ConfigError when they do not fit each other."""
    images, labels = read_idx(pair[0], 3), read_idx(pair[1], 1)
    if len(images) != len(labels):
        raise ConfigError(f"{pair[0]} has {len(images)} images but {pair[1].name} has {len(labels)} labels")
    return images, labels


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, gzipped when the name ends in ``.gz``.

    Raises ConfigError when the file is not that: other type or dimensions, empty, too short, too long, or above 4 GiB.
    """
    try:
        with _open(path) as file:
            return _read(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _read(file: IO[bytes], path: Path, dimensions: int) -> NDArray[np.uint8]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise ConfigError(f"{path} is no IDX file: it starts with {head.hex() or 'nothing'}")
    if head[2] != BYTES or head[3] != dimensions:
        raise ConfigError(
            f"{path} holds type {head[2]:#04x} in {head[3]} dimensions; expected unsigned bytes (0x08) in {dimensions}"
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ConfigError(f"{path} ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    count = math.prod(shape)
    if not 0 < count <= MOST_BYTES:
        raise ConfigError(f"{path} claims shape {shape}; expected 1 to {MOST_BYTES} bytes")
    return np.frombuffer(_content(file, path, count), dtype=np.uint8).reshape(shape)


def _content(file: IO[bytes], path: Path, count: int) -> bytearray:
    """Exactly ``count`` bytes, in steps, so that a lying header takes no more memory than the file has content."""
    content = bytearray()
    while chunk := file.read(min(1 << 22, count + 1 - len(content))):
        content += chunk
    if len(content) != count:
        excess = "more than" if len(content) > count else f"{len(content)} of"
        raise ConfigError(f"{path} holds {excess} the {count} bytes that its header claims")
    return content
