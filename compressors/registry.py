"""Every compressor by name: the classes of the modules in this folder that carry one."""

import importlib
import inspect
import math
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from compressors.base import DTYPE_NAMES, Compressor, Payload
from thinwire.config import nearest
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.codec import WORD, parse_codec


@cache
def registry() -> dict[str, type[Compressor]]:
    """Name to class, by looking through the files of ``compressors/``."""
    found: dict[str, type[Compressor]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        for value in vars(importlib.import_module(f"compressors.{module.name}")).values():
            if inspect.isclass(value) and issubclass(value, Compressor) and "name" in vars(value):
                other = found.setdefault(value.name, value)
                assert other is value, f"two compressors are called {value.name!r}: {other} and {value}"
                assert WORD.fullmatch(value.name), f"{value.name!r}: small letters, digits and hyphens only"
    return found


def find(name: str) -> type[Compressor]:
    """The class of that name. Raises ConfigError naming the nearest known one."""
    if name not in registry():
        raise ConfigError(f"unknown compressor {name!r}{nearest(name, registry())}")
    return registry()[name]


@dataclass(frozen=True)
class Expectation:
    """What a receiver is ready to decode: nothing else is looked at, whatever the peer says."""

    layout: Layout
    dtype: torch.dtype
    codecs: frozenset[str]
    limit_bytes: int = 0  # 0: what the layout would take uncompressed, and a little more

    @property
    def most_bytes(self) -> int:
        """The largest content accepted."""
        return self.limit_bytes or self.layout.numel * self.dtype.itemsize + self.layout.numel // 8 + 65_536


def decode(payload: Payload, expectation: Expectation, key: Key, device: torch.device | str = "cpu") -> Tensor:
    """Decode an expected payload. Raises WireError on an unexpected codec, dtype, size, or any nonsense inside.

    A compressor around others names its codec after all of them ("scaled(natural)"); the outermost one decodes it.
    The result is finite: a peer cannot send NaN or infinity into a state.
    """
    if payload.codec not in expectation.codecs:
        allowed = ", ".join(sorted(expectation.codecs))
        raise WireError(f"codec {payload.codec!r} is not allowed here; expected {allowed}")
    if payload.dtype != DTYPE_NAMES[expectation.dtype]:
        raise WireError(f"dtype {payload.dtype!r} is not this run's {DTYPE_NAMES[expectation.dtype]!r}")
    if payload.size > expectation.most_bytes:
        raise WireError(f"payload of {payload.size} bytes; at most {expectation.most_bytes} are allowed here")
    vector = find(parse_codec(payload.codec).name).decode(payload, expectation.layout, key, device)
    if not math.isfinite(vector.sum().item()) and not bool(torch.isfinite(vector).all()):  # the sum is far cheaper
        raise WireError(f"codec {payload.codec!r} decoded to a non-finite value")
    return vector
