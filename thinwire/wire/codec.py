"""The name of a codec: ``natural``, or one around others, ``scaled(natural)``, ``mixed(top-k,scaled(rand-k))``."""

import re
from dataclasses import dataclass

from thinwire.errors import WireError

MOST_CODEC_BYTES = 128
MOST_CODEC_DEPTH = 4  # parentheses within parentheses, and one
WORD = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Codec:
    """A compressor's name and the codecs inside it, in their order."""

    name: str
    inner: tuple["Codec", ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({','.join(map(str, self.inner))})" if self.inner else self.name

    def names(self) -> frozenset[str]:
        """Every compressor that takes part."""
        return frozenset({self.name}).union(*(codec.names() for codec in self.inner))


def parse_codec(text: str) -> Codec:
    """The codec of a name. Raises WireError on anything but names and parentheses, or if it is too long or too deep."""
    if len(text) > MOST_CODEC_BYTES:
        raise WireError(f"codec {text[:80]!r} of {len(text)} bytes; at most {MOST_CODEC_BYTES} are allowed")
    codec, end = _parse(text, 0, 1)
    if end != len(text):
        raise _malformed(text, end)
    return codec


def _parse(text: str, start: int, depth: int) -> tuple[Codec, int]:
    """The codec that starts there, and where it ends."""
    if depth > MOST_CODEC_DEPTH:
        raise WireError(f"codec {text!r} is nested more than {MOST_CODEC_DEPTH} deep")
    word = WORD.match(text, start)
    if word is None:
        raise _malformed(text, start)
    end, inner = word.end(), list[Codec]()
    if text[end : end + 1] == "(":
        while not inner or text[end : end + 1] == ",":
            codec, end = _parse(text, end + 1, depth + 1)
            inner.append(codec)
        if text[end : end + 1] != ")":
            raise _malformed(text, end)
        end += 1
    return Codec(word.group(), tuple(inner)), end


def _malformed(text: str, place: int) -> WireError:
    return WireError(f"codec {text!r} is malformed at character {place + 1}; it should look like 'scaled(natural)'")
