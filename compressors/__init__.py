"""Compressors: C(x), one small file each."""

from compressors.base import ALONE, Compressor, Encoded, NonFinite, Payload, Place
from compressors.registry import Expectation, decode, find, registry

__all__ = [
    "ALONE",
    "Compressor",
    "Encoded",
    "Expectation",
    "NonFinite",
    "Payload",
    "Place",
    "decode",
    "find",
    "registry",
]
