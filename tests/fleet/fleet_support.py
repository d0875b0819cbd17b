"""What the fleet's tests share: apps, recorded events, sessions in threads, a TCP proxy that can cut the wire."""

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from thinwire.flower import request  # first: it imports flwr quietly
from thinwire.v1.fleet_pb2 import ConnectRequest, ConnectResponse, Frame, Open

from client.fleet import FleetSession, SessionOptions  # isort: skip
from server.grids.fleet import FleetGrid  # isort: skip
from server.grids.options import FleetOptions  # isort: skip
from flwr.app import Array, ArrayRecord, Message, RecordDict  # isort: skip

DEADLINE_SECONDS = 20.0
RUN = 42


def echo(message: Message, context: object) -> Message:
    return Message(message.content, reply_to=message)


def content(data: bytes = b"thin") -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"x": Array("uint8", (len(data),), "raw", data)})})


def data_of(message: Message) -> bytes:
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)
    return record["x"].data


def ask(node: int, data: bytes = b"thin", ttl: float = 600.0) -> Message:
    return request(content(data), "train", node, RUN, ttl=ttl)


class Events:
    """Records events; waits for one with a deadline."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self._changed = threading.Condition()

    def __call__(self, kind: str, identity: str, detail: str) -> None:
        with self._changed:
            self.seen.append((kind, identity, detail))
            self._changed.notify_all()

    def wait(self, kind: str, identity: str | None = None, count: int = 1) -> str:
        """The detail of the ``count``-th such event."""

        def found() -> list[str]:
            return [d for k, i, d in self.seen if k == kind and identity in (None, i)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, DEADLINE_SECONDS), (kind, identity, self.seen)
            return found()[count - 1]


class Client:
    """A FleetSession in a thread, and how it ended."""

    def __init__(self, options: SessionOptions, app: Callable[..., Message] = echo) -> None:
        self.session = FleetSession(options, app)
        self.outcome: str | BaseException | None = None
        self.stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self.session.run_forever(self.stop_event)
        except BaseException as error:
            self.outcome = error

    def join(self) -> str | BaseException | None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        return self.outcome

    def stop(self) -> None:
        self.stop_event.set()
        self.join()


@contextlib.contextmanager
def fleet(events: Events | None = None, run_id: int = RUN, **options: object) -> Iterator[FleetGrid]:
    grid = FleetGrid(FleetOptions(**{"address": "127.0.0.1:0", **options}), run_id, events)  # type: ignore[arg-type]
    with grid:
        yield grid


@contextlib.contextmanager
def clients(
    address: str, *identities: str, app: Callable[..., Message] = echo, **options: object
) -> Iterator[list[Client]]:
    started = [
        Client(SessionOptions(address, name, first_wait_seconds=0.05, **options), app)  # type: ignore[arg-type]
        for name in identities
    ]
    try:
        yield started
    finally:
        for client in started:
            client.stop()


class Proxy:
    """A TCP proxy on loopback that can cut all its connections, and counts their bytes."""

    def __init__(self, target: str, http: bool = False) -> None:
        """``http``: an HTTP proxy, which is asked to CONNECT; whatever it is asked for, it connects to the target."""
        host, port = target.rsplit(":", 1)
        self._http = http
        self.asked: list[str] = []  # first lines of what an HTTP proxy was asked
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.to_client_bytes = 0
        self.to_server_bytes = 0
        self.cut_after_bytes: int | None = None  # towards the client, then cut
        self.cut_after_reply_bytes: int | None = None  # towards the server, then cut
        self.bytes_per_second: float | None = None  # towards the client; the kernels' buffers hold what waits
        self.source = "127.0.0.1"  # the address that the server sees
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._start(self._accept)

    def cut(self) -> None:
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._closing.set()
        self.cut()
        for thread in list(self._threads):
            thread.join(DEADLINE_SECONDS)
        for one in self._sockets:
            one.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._target, source_address=(self.source, 0))
            if self._http:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += near.recv(1)
                self.asked.append(head.decode().splitlines()[0])
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with self._lock:
                self._sockets += [near, far]
            self._start(self._pump, near, far, False)
            self._start(self._pump, far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, towards_client: bool) -> None:
        try:
            while data := source.recv(1 << 16 if self.bytes_per_second is None else 1 << 12):
                if self._counts_out(len(data), towards_client):
                    self.cut()
                    return
                if towards_client and self.bytes_per_second is not None:
                    self._closing.wait(len(data) / self.bytes_per_second)
                sink.sendall(data)
        except OSError:
            return
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _counts_out(self, count: int, towards_client: bool) -> bool:
        """Count bytes; whether the wire is to be cut now."""
        if towards_client:
            self.to_client_bytes += count
            if self.cut_after_bytes is None or self.to_client_bytes <= self.cut_after_bytes:
                return False
            self.cut_after_bytes = None
        else:
            self.to_server_bytes += count
            if self.cut_after_reply_bytes is None or self.to_server_bytes <= self.cut_after_reply_bytes:
                return False
            self.cut_after_reply_bytes = None
        return True


@contextlib.contextmanager
def proxy(target: str, http: bool = False) -> Iterator[Proxy]:
    one = Proxy(target, http)
    try:
        yield one
    finally:
        one.close()


class RawClient:
    """Speaks to the fleet byte by byte, politely or not."""

    def __init__(self, address: str) -> None:
        self._more = threading.Condition()
        self._queue: list[bytes | None] = []
        self._channel = grpc.insecure_channel(address)
        connect = self._channel.stream_stream(
            "/thinwire.v1.FleetService/Connect",
            request_serializer=lambda data: data,
            response_deserializer=ConnectResponse.FromString,
        )
        self._call = connect(self._requests(), timeout=DEADLINE_SECONDS)

    def _requests(self) -> Iterator[bytes]:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._queue)
                data = self._queue.pop(0)
            if data is None:
                return
            yield data

    def send(self, request: ConnectRequest | Open | Frame | bytes | None) -> None:
        if isinstance(request, Open):
            request = ConnectRequest(open=request)
        if isinstance(request, Frame):
            request = ConnectRequest(frame=request)
        with self._more:
            self._queue.append(request.SerializeToString() if isinstance(request, ConnectRequest) else request)
            self._more.notify_all()

    def receive(self) -> ConnectResponse:
        response: ConnectResponse = next(self._call)
        return response

    def receive_request(self) -> str:
        """The identifier of the next request, all of whose frames are read."""
        while True:
            frame = self.receive().frame
            assert frame.chunk
            if frame.offset + len(frame.chunk) == frame.total_bytes:
                return frame.message

    def rest(self) -> list[ConnectResponse]:
        """What comes until the server ends the stream."""
        with contextlib.suppress(grpc.RpcError):
            return list(self._call)
        return []

    def close(self) -> None:
        self.send(None)
        self._call.cancel()
        self._channel.close()


@contextlib.contextmanager
def raw_client(address: str, opening: Open | None = None) -> Iterator[RawClient]:
    one = RawClient(address)
    try:
        if opening is not None:
            one.send(opening)
        yield one
    finally:
        one.close()


def thread_names() -> set[str]:
    """The threads alive once those that are just ending had their time."""
    gc.collect()  # gRPC's poller lives until the last server of whatever test came before is collected
    deadline = time.monotonic() + DEADLINE_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.name.startswith(("pytest", "execnet")):
            thread.join(max(0.0, min(2.0, deadline - time.monotonic())))
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith(("pytest", "execnet"))}
