"""Rounds over the gRPC fleet on loopback: seconds per round, and the server's memory as the cohort grows.

    python -m benchmarks.fleet [--json]

Every client is a process of its own that echoes what it gets; the server is this process, or a fresh one per cohort
when its memory is measured.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from thinwire.flower import request
from thinwire.wire.frames import CHUNK_BYTES

from client.fleet import FleetSession, SessionOptions  # isort: skip
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict  # isort: skip
from server.grids.fleet import FleetGrid  # isort: skip
from server.grids.options import FleetOptions  # isort: skip

MEGABYTE = 1_000_000
RUN = 1
SPAWN = multiprocessing.get_context("spawn")


def echo(message: Message, context: Context) -> Message:
    """Trivial work."""
    return Message(message.content, reply_to=message)


def answer_for_ever(address: str, identity: str) -> None:
    """A client process."""
    FleetSession(SessionOptions(address, identity), echo).run_forever()


def content(size_bytes: int) -> RecordDict:
    """One array of so many bytes."""
    data = os.urandom(size_bytes)
    return RecordDict({"arrays": ArrayRecord({"x": Array("uint8", (size_bytes,), "raw", data)})})


@contextmanager
def fleet_of(count: int, chunk_bytes: int, spill_bytes: int = 256 << 20) -> Iterator[tuple[FleetGrid, list[int]]]:
    """A server and its client processes, all connected."""
    with FleetGrid(FleetOptions("127.0.0.1:0", chunk_bytes=chunk_bytes, spill_bytes=spill_bytes), RUN) as grid:
        processes: list[BaseProcess] = [
            SPAWN.Process(target=answer_for_ever, args=(grid.address, f"client-{index}")) for index in range(count)
        ]
        for process in processes:
            process.start()
        try:
            yield grid, grid.wait_for_nodes(count, 120)
        finally:
            grid.finish()
            for process in processes:
                process.join(30)


def round_seconds(size_bytes: int, rounds: int = 30, clients: int = 2) -> dict[str, Any]:
    """Seconds per round of an echo, after two rounds to warm up."""
    with fleet_of(clients, CHUNK_BYTES) as (grid, nodes):
        records = content(size_bytes)
        took = []
        for _ in range(rounds + 2):
            start = time.perf_counter()
            replies = grid.send_and_receive([request(records, "train", node, RUN) for node in nodes], timeout=120)
            took.append(time.perf_counter() - start)
            assert len(replies) == clients
        took = sorted(took[2:])
    return {
        "clients": clients,
        "bytes_each_way": size_bytes,
        "median_seconds": statistics.median(took),
        "best_seconds": took[0],
        "worst_seconds": took[-1],
    }


def peak_bytes(clients: int, size_bytes: int, chunk_bytes: int, spill_bytes: int) -> dict[str, Any]:
    """The server's memory over three rounds in which every reply waits to be pulled; run in a process of its own."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_measure, args=(theirs, clients, size_bytes, chunk_bytes, spill_bytes))
    process.start()
    idle, peak = ours.recv()
    process.join()
    return {
        "clients": clients,
        "bytes_each_way": size_bytes,
        "chunk_bytes": chunk_bytes,
        "spill_bytes": spill_bytes,
        "idle_bytes": idle,
        "above_idle_bytes": peak - idle,
    }


def _measure(results: Any, clients: int, size_bytes: int, chunk_bytes: int, spill_bytes: int) -> None:
    with fleet_of(clients, chunk_bytes, spill_bytes) as (grid, nodes):
        idle = _resident("VmRSS")
        records = content(size_bytes)
        for _ in range(3):
            message_ids = grid.push_messages([request(records, "train", node, RUN) for node in nodes])
            for reply in grid.replies(message_ids, timeout=300):
                assert reply.has_content()
                del reply
        peak = _resident("VmHWM")
    results.send((idle, peak))


def _resident(field: str) -> int:
    """A memory figure of this process from /proc, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def main(arguments: list[str]) -> None:
    """Print the measurements, as JSON with ``--json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description="Rounds over the gRPC fleet.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cohorts", type=int, nargs="*", default=[2, 4, 8, 16])
    parser.add_argument("--chunk-bytes", type=int, default=CHUNK_BYTES)
    options = parser.parse_args(arguments)
    rounds = [round_seconds(size) for size in (1_000, 4 * MEGABYTE)]
    memory = [peak_bytes(count, 16 * MEGABYTE, options.chunk_bytes, 32 * MEGABYTE) for count in options.cohorts]
    if options.json:
        print(json.dumps({"rounds": rounds, "memory": memory}, indent=2))
        return
    for row in rounds:
        seconds = f"{row['median_seconds']:.4f} s a round (best {row['best_seconds']:.4f})"
        print(f"{row['clients']} clients, {row['bytes_each_way']:>9,} bytes each way: {seconds}")
    for row in memory:
        size, spill, idle, above = (
            row[name] // MEGABYTE for name in ("bytes_each_way", "spill_bytes", "idle_bytes", "above_idle_bytes")
        )
        print(f"{row['clients']:>3} clients, {size} MB each way, {spill} MB before disk: {above} MB above {idle} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
