"""Payloads within a payload: what compressors around others share.

The outer parameters come first; then, for each inner payload, its parameters, after two numbers except for the last:
how many bytes they are and how many streams it has. Streams follow each other likewise, the outer ones first. The codec
is the outer name with the inner codecs in parentheses, so that a receiver that expects one nest decodes no other.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compressors.base import Compressor, Payload, require
from compressors.registry import registry
from thinwire.errors import WireError
from thinwire.layout import Entry, Layout
from thinwire.random import Key
from thinwire.wire.codec import parse_codec

HEAD = struct.Struct("<HB")  # bytes of parameters; number of streams

PROBE = Layout((Entry("matrix", (64, 64)),))
"""A model on which compressors inside others are judged: unbiased or contractive."""


def finite(vector: Tensor) -> Tensor:
    """The vector with what has overflowed clamped to the largest finite numbers; NaN stays, for receivers to refuse."""
    most = torch.finfo(vector.dtype).max
    return vector.clamp(-most, most)


def split_warm(warm: Any, count: int) -> tuple[Any, ...]:
    """The warm states of the inner compressors, None for each where there is nothing (or nothing that fits)."""
    return warm if isinstance(warm, tuple) and len(warm) == count else (None,) * count


def join_warm(*warm: Any) -> tuple[Any, ...] | None:
    """Their next warm states together; None if there is none."""
    return None if all(one is None for one in warm) else warm


def codecs_around(name: str, *inner: Compressor) -> frozenset[str]:
    """The codecs of a compressor of that name around others: every combination of theirs."""
    return frozenset(f"{name}({','.join(codecs)})" for codecs in itertools.product(*(one.codecs for one in inner)))


def nest(name: str, inner: Sequence[Payload], parameters: bytes = b"", streams: Sequence[bytes] = ()) -> Payload:
    """One payload of several, all of one dtype, with parameters and streams of its own before theirs."""
    codec = f"{name}({','.join(payload.codec for payload in inner)})"
    for payload in inner[:-1]:
        parameters += HEAD.pack(len(payload.parameters), len(payload.streams)) + payload.parameters
    joined = (*streams, *(stream for payload in inner for stream in payload.streams))
    return Payload(codec, inner[-1].dtype, parameters + inner[-1].parameters, joined)


def unnest(payload: Payload, count: int | None, own_bytes: int = 0, own_streams: int = 0) -> tuple[Payload, ...]:
    """The inner payloads, of which there must be ``count`` (None: at least one). Raises WireError on any misfit."""
    codecs = parse_codec(payload.codec).inner
    require(len(codecs) == count if count else len(codecs) > 0, f"codec {payload.codec!r} with {len(codecs)} inside")
    require(len(payload.parameters) >= own_bytes, f"{payload.codec} with {len(payload.parameters)} bytes of parameters")
    require(len(payload.streams) >= own_streams, f"{payload.codec} of {len(payload.streams)} streams")
    found, rest, streams = [], payload.parameters[own_bytes:], payload.streams[own_streams:]
    for codec in codecs[:-1]:
        require(len(rest) >= HEAD.size, f"{payload.codec} whose parameters end before those of {codec}")
        size, number = HEAD.unpack_from(rest)
        rest = rest[HEAD.size :]
        require(len(rest) >= size, f"{payload.codec} whose parameters end within those of {codec}")
        require(len(streams) >= number, f"{payload.codec} whose streams end before those of {codec}")
        found.append(Payload(str(codec), payload.dtype, rest[:size], streams[:number]))
        rest, streams = rest[size:], streams[number:]
    return (*found, Payload(str(codecs[-1]), payload.dtype, rest, streams))


def inner_kind(codec: str) -> type[Compressor]:
    """The compressor that decodes an inner codec. Raises WireError where there is none."""
    name = parse_codec(codec).name
    if name not in registry():
        raise WireError(f"codec {codec!r} is unknown")
    return registry()[name]


def decode_inner(payload: Payload, layout: Layout, key: Key, device: torch.device | str) -> Tensor:
    """What an inner payload stands for; whether it may be there was decided by the name of the whole."""
    return inner_kind(payload.codec).decode(payload, layout, key, device)
