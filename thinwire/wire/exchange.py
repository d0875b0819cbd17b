"""What server and client say to each other: the messages of round.proto, their limits, digests and hash chains."""

import hashlib
import os
import re
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from thinwire.errors import WireError
from thinwire.v1 import round_pb2
from thinwire.v1.round_pb2 import (
    REASON_DECLINED,
    REASON_DIVERGED_REPLICA,
    REASON_LOST_PRIVATE,
    REASON_MISSING_REPLICA,
    REASON_UNSPECIFIED,
    REASON_UNWELCOME,
    Base,
    EvaluateReply,
    EvaluateRequest,
    HelloReply,
    HelloRequest,
    RoundReply,
    RoundRequest,
    Snapshot,
    WelcomeReply,
    WelcomeRequest,
)
from thinwire.v1.round_pb2 import Downlink as DownlinkStep
from thinwire.wire.endpoint import fault_of_identity
from thinwire.wire.packet import parse

PROTOCOL = 1
MOST_SMALL_BYTES = 1 << 20
MOST_CONFIGURATION_BYTES = 1 << 20
MOST_TEXT_BYTES = 2_048
MOST_METRICS = 64
RUN = re.compile(r"[0-9a-f]{32}")

Reason = round_pb2.Reason
REASONS: dict[int, str] = {n: name.removeprefix("REASON_").lower().replace("_", " ") for name, n in Reason.items()}

M = TypeVar("M", bound=Message)


def read(kind: type[M], data: bytes, limit_bytes: int = MOST_SMALL_BYTES) -> M:
    """A message of round.proto from a peer's bytes. Raises WireError on malformed bytes or anything over the limits."""
    if len(data) > limit_bytes:
        raise WireError(f"{kind.DESCRIPTOR.name} of {len(data)} bytes; at most {limit_bytes} are allowed here")
    message = parse(kind, data)
    for name in ("detail", "refusal", "software", "task"):
        if len(getattr(message, name, "").encode()) > MOST_TEXT_BYTES:
            raise WireError(f"{kind.DESCRIPTOR.name}.{name} is longer than {MOST_TEXT_BYTES} bytes")
    if len(getattr(message, "configuration", "").encode()) > MOST_CONFIGURATION_BYTES:
        raise WireError(f"a configuration longer than {MOST_CONFIGURATION_BYTES} bytes")
    if len(getattr(message, "metrics", ())) > MOST_METRICS:
        raise WireError(f"more than {MOST_METRICS} metrics in a reply")
    run = getattr(message, "run", None)  # it names a folder on the client
    if run is not None and not RUN.fullmatch(run):
        raise WireError(f"bad run identifier {run[:80]!r}")
    return message


def check_client_name(name: str) -> str:
    """A client's name as it may appear in a roster, a path and a log. Raises WireError otherwise."""
    fault = fault_of_identity(name)
    if fault is not None:
        raise WireError(fault)
    return name


def new_run() -> str:
    """A run identifier: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def digest(data: bytes) -> bytes:
    """The first sixteen bytes of SHA-256, which processors have instructions for."""
    return hashlib.sha256(data).digest()[:16]


def question(request: RoundRequest, history: bytes) -> bytes:
    """Sixteen bytes that identify what is asked, on which replica: asked it again, a client resends its answer."""
    parts = (request.run, request.incarnation, request.round, request.attempt, request.place, request.cohort)
    return digest(repr((*parts, request.target_version, history, request.chain, request.personal)).encode())


def chain_start(run: str, client: int, epoch: int) -> bytes:
    """The chain of a client that has had no uplink applied; ``epoch`` counts its resets."""
    return digest(f"{run} {client} {epoch}".encode())


def chain_next(chain: bytes, uplink: bytes) -> bytes:
    """The chain after one more applied uplink (its packed bytes)."""
    return chain_over(chain, digest(uplink))


def chain_over(chain: bytes, uplink_digest: bytes) -> bytes:
    """The same, where the uplink's digest is known already: hashing is what a round of large packets waits for."""
    return digest(chain + uplink_digest)


def chain_of(chain: bytes, uplinks: Sequence[bytes]) -> bytes:
    """The chain after several applied uplinks."""
    for uplink in uplinks:
        chain = chain_next(chain, uplink)
    return chain


__all__ = [
    "PROTOCOL",
    "REASONS",
    "REASON_DECLINED",
    "REASON_DIVERGED_REPLICA",
    "REASON_LOST_PRIVATE",
    "REASON_MISSING_REPLICA",
    "REASON_UNSPECIFIED",
    "REASON_UNWELCOME",
    "Base",
    "DownlinkStep",
    "EvaluateReply",
    "EvaluateRequest",
    "HelloReply",
    "HelloRequest",
    "Reason",
    "RoundReply",
    "RoundRequest",
    "Snapshot",
    "WelcomeReply",
    "WelcomeRequest",
    "chain_next",
    "chain_of",
    "chain_over",
    "chain_start",
    "check_client_name",
    "digest",
    "new_run",
    "question",
    "read",
]
