"""Messages between processes of one machine: a line of JSON and the packed parts as they are, nothing pickled."""

import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

WORTH_BYTES = 4096  # of a part that is not sent again when it is the one before


class Pipe:
    """One end of a pipe between a server and a process of clients.

    Most requests of a round carry the very same downlink; it crosses the pipe once.
    """

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._sent: dict[str, bytes] = {}  # part -> its bytes, as the other end has them
        self._received: dict[str, bytes] = {}

    def send(self, head: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
        """Send a message. Raises OSError when the other end is gone."""
        again = [name for name, data in parts.items() if len(data) >= WORTH_BYTES and self._sent.get(name) is data]
        self._sent |= {name: data for name, data in parts.items() if len(data) >= WORTH_BYTES}
        self._connection.send_bytes(json.dumps({**head, "parts": list(parts), "again": again}).encode())
        for name, data in parts.items():
            if name not in again:
                self._connection.send_bytes(data)

    def receive(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The next message. Raises EOFError or OSError when the other end is gone."""
        head: dict[str, Any] = json.loads(self._connection.recv_bytes())
        again = set(head["again"])
        parts = {
            name: self._received[name] if name in again else self._connection.recv_bytes() for name in head["parts"]
        }
        self._received |= {name: data for name, data in parts.items() if len(data) >= WORTH_BYTES}
        return head, parts

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
