"""Wires of given rate, delay and loss between network namespaces, carried in user space packet by packet.

Linux's own ``tc netem`` does the same where the kernel has it; this is for kernels that do not. Both ends of a wire are
TUN devices, so TCP is the kernel's own on both sides, with its retransmissions, and only the wire between is ours.
"""

import contextlib
import fcntl
import os
import random
import select
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

TUN = "/dev/net/tun"
SET_INTERFACE = 0x400454CA  # TUNSETIFF of <linux/if_tun.h>
TUN_WITHOUT_HEADER = 0x0001 | 0x1000  # IFF_TUN | IFF_NO_PI
PACKET_BYTES = 65_536
QUEUE_SECONDS = 0.2  # what waits for a wire at most; then packets are dropped, as by a router
LEAST_QUEUE_BYTES = 64_000


@dataclass(frozen=True)
class Link:
    """What a wire is like, the same in both directions."""

    mbit: float  # megabits per second
    round_trip_seconds: float = 0.0  # half of it each way
    loss: float = 0.0  # share of the packets lost, in [0, 1)

    def __str__(self) -> str:
        lost = f", {self.loss:.0%} loss" if self.loss else ""
        return f"{self.mbit:g} Mbit/s, {self.round_trip_seconds * 1_000:g} ms{lost}"


@dataclass
class Direction:
    """One way of a wire. Times are of time.monotonic."""

    link: Link
    source: int  # file descriptors
    sink: int
    chance: random.Random
    cut: bool = False
    free_at: float = 0.0  # when the last packet that was taken is on its way
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)  # when it arrives, and the packet

    def take(self, packet: bytes, now: float) -> None:
        """A packet at the near end: lost, dropped, or under way."""
        bytes_per_second = self.link.mbit * 125_000
        room = max(LEAST_QUEUE_BYTES, bytes_per_second * QUEUE_SECONDS)
        backlog = max(0.0, self.free_at - now) * bytes_per_second
        if self.cut or backlog + len(packet) > room or self.chance.random() < self.link.loss:
            return
        self.free_at = max(self.free_at, now) + len(packet) / bytes_per_second
        self.waiting.append((self.free_at + self.link.round_trip_seconds / 2, packet))

    def deliver(self, now: float) -> float | None:
        """Bring what has arrived; when the next will."""
        while self.waiting and self.waiting[0][0] <= now:
            _, packet = self.waiting.popleft()
            if not self.cut:
                with contextlib.suppress(OSError):  # the far end is down, or its queue is full: lost
                    os.write(self.sink, packet)
        return self.waiting[0][0] if self.waiting else None


class Wires:
    """A thread that carries packets between pairs of TUN devices."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)  # which packets are lost is no secret
        self._directions: list[Direction] = []
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._closing = False
        self._thread = threading.Thread(target=self._carry, name="wires", daemon=True)
        self._thread.start()

    def join(self, near: str, far: str, link: Link) -> tuple[Direction, Direction]:
        """Make two TUN devices of these names, in this process's namespace, and a wire between them."""
        one, other = _tun(near), _tun(far)
        there = Direction(link, one, other, random.Random(self._chance.random()))
        back = Direction(link, other, one, random.Random(self._chance.random()))
        self._directions += [there, back]
        for end in (one, other):
            self._poll.register(end, select.EPOLLIN)
        return there, back

    def close(self) -> None:
        """Take all wires down."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._poll.close()
        for descriptor in (self._wake, *(one.source for one in self._directions)):
            os.close(descriptor)

    def _carry(self) -> None:
        due: float | None = None
        while not self._closing:
            timeout = None if due is None else max(0.0, due - time.monotonic())
            ready = {descriptor for descriptor, _ in self._poll.poll(timeout)}
            for direction in list(self._directions):
                if direction.source in ready:
                    self._take_all(direction)
            now = time.monotonic()
            nexts = [direction.deliver(now) for direction in list(self._directions)]
            due = min((one for one in nexts if one is not None), default=None)

    @staticmethod
    def _take_all(direction: Direction) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            for _ in range(64):
                direction.take(os.read(direction.source, PACKET_BYTES), time.monotonic())


def _tun(name: str) -> int:
    """The descriptor of a new TUN device; it lives as long as the descriptor, whatever namespace it is moved to."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, SET_INTERFACE, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
    return descriptor
