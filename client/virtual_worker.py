"""A worker process of a simulation: virtual clients behind a pipe. ``python -m client.virtual_worker DESCRIPTOR``."""

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.virtual import VirtualClients
from thinwire.wire.pipe import Pipe


def work(pipe: Pipe) -> None:
    """Answer until the server hangs up. The first message says how clients are made."""
    settings, _ = pipe.receive()
    folder = Path(settings["folder"]) if settings["folder"] else None
    clients = VirtualClients(settings["task"], settings["device"], folder, through=True)
    while True:
        head, parts = pipe.receive()
        fields: dict[str, Any] = {}
        try:
            reply = clients.answer(head["client"], head["kind"], parts)
        except Exception as error:  # the task is the user's code: whatever it raises is this client's answer
            fields, reply = {"error": f"{type(error)}:<'{error}'>"}, {}
        pipe.send(fields, reply)


def main() -> None:
    """Serve the descriptor that the server has opened for this process."""
    pipe = Pipe(Connection(int(sys.argv[1])))
    try:
        work(pipe)
    except (EOFError, OSError):
        os._exit(0)  # the server is gone; nobody waits for a tidy end


if __name__ == "__main__":
    main()
