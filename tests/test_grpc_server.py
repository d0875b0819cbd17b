"""All gRPC servers of a process live in one event loop, which is there while one of them is."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from server.grpc_server import GrpcServer, Leave

LOOPBACK = "127.0.0.1:0"


def loops() -> int:
    return sum(thread.name == "thinwire-grpc" for thread in threading.enumerate())


def server(left: list[str], name: str = "it", address: str = LOOPBACK) -> GrpcServer:
    async def leave() -> None:
        left.append(name)

    def add(_server: Any) -> Leave:
        return leave

    return GrpcServer(address, None, [("grpc.so_reuseport", 0)], add, stop_seconds=1.0)


def reachable(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=5)
        except grpc.FutureTimeoutError:
            return False
        return True


def test_two_servers_share_one_loop_and_the_second_goes_on_when_the_first_has_left():
    before, left = loops(), []
    first, second = server(left, "first"), server(left, "second")
    assert loops() == max(1, before)
    first.close()
    first.close()
    assert left == ["first"]
    assert reachable(second.address)
    heard = threading.Event()
    second.call(heard.set)
    assert heard.wait(10)
    second.close()
    second.call(heard.clear)
    assert heard.is_set()
    assert (left, loops()) == (["first", "second"], before)
    again = server(left, "again")
    assert reachable(again.address)
    again.close()


def test_a_server_whose_port_is_taken_leaves_nothing_behind():
    before, left = loops(), []
    holder = server(left, "holder")
    with pytest.raises(RuntimeError, match="bind"):
        server(left, "late", holder.address)
    assert left == ["late"]
    assert reachable(holder.address)
    holder.close()
    assert loops() == before


def test_an_error_of_the_service_is_the_constructors():
    def add(_server: Any) -> Leave:
        raise ValueError("no service today")

    before = loops()
    with pytest.raises(ValueError, match="no service today"):
        GrpcServer(LOOPBACK, None, [], add, stop_seconds=1.0)
    assert loops() == before


async def for_ever(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    while True:
        yield b"more"
        await asyncio.sleep(0.001)


def streaming() -> GrpcServer:
    """A server with a stream that ends only when it is cut off."""

    async def leave() -> None:
        return

    def add(into: Any) -> Leave:
        methods = {"Watch": grpc.unary_stream_rpc_method_handler(for_ever)}
        into.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", methods),))
        return leave

    return GrpcServer(LOOPBACK, None, [], add, stop_seconds=0.02)


def watch(address: str, began: threading.Barrier) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream("/test/Watch")(b"")
        next(call)
        began.wait(10)
        with pytest.raises(grpc.RpcError):
            list(call)


@pytest.mark.parametrize("another", [True, False], ids=["beside-another-server", "alone"])
def test_streams_that_are_cut_off_by_the_end_leave_nothing_on_standard_error(capfd, another):
    held = streaming() if another else None
    for _ in range(5):
        one, began = streaming(), threading.Barrier(5)
        watchers = [threading.Thread(target=watch, args=(one.address, began)) for _ in range(4)]
        for watcher in watchers:
            watcher.start()
        began.wait(10)
        one.close()
        for watcher in watchers:
            watcher.join(10)
    if held is not None:
        held.close()
    assert "Traceback" not in capfd.readouterr().err
