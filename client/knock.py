"""Asks a server whether it would let a client in, without coming in: a client that runs under this name stays."""

import time
from dataclasses import dataclass

import grpc

from client.fleet import SessionOptions, channel_to, credentials_of
from thinwire import __version__
from thinwire.v1.fleet_pb2 import ConnectRequest, ConnectResponse, Open
from thinwire.v1.fleet_pb2_grpc import FleetServiceStub
from thinwire.wire.frames import PROTOCOL


@dataclass(frozen=True)
class Answer:
    """What a server says to a knock."""

    welcome: bool
    reason: str = ""  # of the no, or why there is no answer
    software: str = ""  # the server's version
    skew_seconds: float = 0.0  # the server's clock less ours, give or take half of ``trip_seconds``
    trip_seconds: float = 0.0  # from question to answer


def knock(options: SessionOptions, seconds: float = 10.0) -> Answer:
    """One question, one answer. Raises ConfigError for credentials that cannot be read."""
    opening = Open(
        protocol=PROTOCOL,
        software=f"thinwire {__version__}",
        identity=options.identity,
        token=options.token,
        knock=True,
    )
    with channel_to(options, credentials_of(options)) as channel:
        stub = FleetServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            grpc.channel_ready_future(channel).result(seconds)
            asked = time.time()
            response: ConnectResponse = next(stub.Connect(iter([ConnectRequest(open=opening)]), timeout=seconds))
        except (grpc.RpcError, grpc.FutureTimeoutError, StopIteration) as error:
            return Answer(False, _words(error))
        trip = time.time() - asked
    kind = response.WhichOneof("content")
    if kind == "heard":
        skew = response.heard.time - (asked + trip / 2)
        return Answer(True, software=response.heard.software, skew_seconds=skew, trip_seconds=trip)
    if kind == "refused":
        return Answer(False, response.refused.reason)
    if kind == "finished":
        return Answer(True, response.finished.reason)
    return Answer(False, "the server does not know what a knock is; install its version of thinwire")


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {(str(error.details() or '').splitlines() or [''])[0][:200]}"
    return "no answer" if isinstance(error, grpc.FutureTimeoutError) else "the server hung up"
