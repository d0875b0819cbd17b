"""A run among peers that mean harm ends with the bits of the run without them."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from hosts_support import CLIENTS, fleet, in_process, in_step, on_grid, options_of

from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from thinwire.v1.fleet_pb2 import ConnectRequest, ConnectResponse, Frame, Open
from thinwire.wire.frames import PROTOCOL

ROSTER = tuple(f"client-{index}" for index in range(CLIENTS))
CASE = "ef21 top-k, natural down"


def talk(address: str, *words: ConnectRequest, limit: int = 3) -> list[ConnectResponse]:
    """Say all that on one stream, hang on until the server ends it, or ``limit`` answers came."""
    said = threading.Event()

    def requests() -> Iterator[ConnectRequest]:
        yield from words
        said.wait(1)

    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.stream_stream(
            "/thinwire.v1.FleetService/Connect",
            request_serializer=ConnectRequest.SerializeToString,
            response_deserializer=ConnectResponse.FromString,
        )(requests(), timeout=5)
        answers = []
        with contextlib.suppress(grpc.RpcError):
            for answer in call:
                answers.append(answer)
                if len(answers) == limit:
                    break
        said.set()
        call.cancel()
    return answers


def hello(identity: str, token: str = "right") -> ConnectRequest:
    return ConnectRequest(open=Open(protocol=PROTOCOL, identity=identity, token=token))


def guesses(address: str) -> None:
    """Who does not know the secret, under the name of one who does."""
    talk(address, hello("client-0", "wrong"))


def strangers(address: str) -> None:
    talk(address, hello("mallory"))


def mutes(address: str) -> None:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as one:
        one.sendall(b"\0" * 4_096)


def giants(address: str) -> None:
    """A first word of a megabyte."""
    talk(address, ConnectRequest(open=Open(protocol=PROTOCOL, identity="x" * (1 << 20))))


def frames_first(address: str) -> None:
    talk(address, ConnectRequest(frame=Frame(message="m", total_bytes=1 << 40, chunk=b"x")))


def test_a_run_among_hostile_peers_ends_with_the_same_bits(tmp_path: Path) -> None:
    """A storm of connections from the same address as the clients', each with something else wrong."""
    options = options_of(CASE, tmp_path)
    expected = in_process(options, tmp_path / "simulated")
    over = threading.Event()
    turns = dict.fromkeys((guesses, strangers, mutes, giants, frames_first), 0)

    def attack(how: Callable[[str], None], address: str) -> None:
        while not over.wait(0.05):
            with contextlib.suppress(OSError):
                how(address)
            turns[how] += 1

    limits: dict[str, Any] = {"token": "right", "roster": ROSTER, "hello_seconds": 2.0}
    with FleetGrid(FleetOptions(address="127.0.0.1:0", **limits), run_id=11) as grid:
        attackers = [threading.Thread(target=attack, args=(how, grid.address)) for how in turns]
        for attacker in attackers:
            attacker.start()
        try:
            with fleet(grid.address, tmp_path / "states", {}, token="right"):
                model = on_grid(grid, options, tmp_path / "fleet")
                grid.finish()
        finally:
            over.set()
            for attacker in attackers:
                attacker.join()
    assert model == expected
    assert all(turns.values())
    in_step(tmp_path / "fleet", tmp_path / "states")
