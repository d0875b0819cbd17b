"""What the tests of the methods share: every method in every form that theory admits, and recorded runs of it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from compressors import Payload, Place
from compressors.top_k import TopK
from strategies.base import Federation, Local, Method, Round
from strategies.builder import build_method
from strategies.descent import Descent
from strategies.optimisers import SGD
from strategies.problems import FiniteSum, gaussian, ridge
from strategies.registry import method_names
from thinwire import state
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.random import Key
from thinwire.wire.packet import pack, unpack

LIMIT_BYTES = 1 << 24
TOP_8 = TopK(0.1, values="bf16", scope="global")  # of the 80 coordinates of the ridge
TOP_1 = TopK(1 / 3, values="fp32", scope="global")  # of the 3 of the example

UPLINKS = ({"name": "identity"}, {"name": "natural"}, {"name": "top-k", "fraction": 0.1, "scope": "global"})
DOWNLINKS = (
    {},
    {"name": "top-k", "fraction": 0.1, "scope": "global"},
    {"name": "natural", "channel": "direct"},
)


def full(estimator, rate: float, **parts) -> Descent:
    """Descent on full gradients with plain SGD on the server."""
    return Descent(estimator, SGD(rate), work="full", **parts)


@cache
def the_ridge(seed: int = 0) -> FiniteSum:
    return ridge(seed)


@cache
def forms() -> dict[str, Method]:
    """Every registered method with every pair of compressors that it admits; at least one each."""
    found: dict[str, Method] = {}
    for name in method_names():
        for uplink, downlink in product(UPLINKS, DOWNLINKS):
            label = f"{name} {uplink['name']} {downlink.get('name', 'dense')}"
            try:
                found[label] = build_method({"name": name}, uplink, downlink)
            except ConfigError:
                continue
    return found


@dataclass(frozen=True)
class Pull:
    """An oracle of any dimension: towards a centre, with a little noise in a minibatch."""

    centre: Tensor

    def full(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.centre)

    def sample(self, x: Tensor, key: Key) -> Tensor:
        return self.full(x) + 0.01 * gaussian(key, len(x)).to(x)

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        z = x
        for step in range(2):
            gradient = self.sample(z, key.at(f"step{step}"))
            z = z - 0.5 * (gradient if correction is None else gradient + correction)
        return Local(x - z, 2, 0.5)


@dataclass(frozen=True)
class Played:
    """One round as it went over the wire."""

    number: int
    uplinks: tuple[tuple[int, bytes], ...]
    downlink: bytes


CLIENTS = 3


def federation_of(numel: int, dtype: torch.dtype) -> Federation:
    layout = Layout((Entry("matrix", (numel // 2 // 8, 8)), Entry("vector", (numel - numel // 2 // 8 * 8,))))
    return Federation(layout, CLIENTS, 5, dtype, (0.5, 0.3, 0.2))


def start_of(federation: Federation) -> Tensor:
    return gaussian(Key(5, "start"), federation.layout.numel).to(federation.dtype)


def cohort(number: int) -> tuple[int, ...]:
    """Everyone in the first two rounds, then two of three."""
    return tuple(range(CLIENTS)) if number <= 2 else tuple(sorted({number % 3, (number + 1) % 3}))


def on_client(federation: Federation, number: int, client: int) -> Round:
    asked = cohort(number)
    blind = Federation(federation.layout, federation.clients, federation.seed, federation.dtype)
    return Round(number, blind, client, Place(asked.index(client), len(asked)))


@dataclass
class Nodes:
    """Server and clients, each with a replica of its own."""

    method: Method
    federation: Federation
    replicas: list  # of the server, then of each client
    server: object
    privates: list
    mirrors: list

    @staticmethod
    def start(method: Method, federation: Federation) -> "Nodes":
        replica, server = method.begin(start_of(federation), federation)
        replicas = [state.load(state.dump(replica)) for _ in range(CLIENTS + 1)]
        privates = [method.join(replica) for replica in replicas[1:]]
        return Nodes(method, federation, replicas, server, privates, [method.mirror(p) for p in privates])

    def play(self, number: int) -> Played:
        sent = []
        for client in cohort(number):
            here = on_client(self.federation, number, client)
            like = self.method.model(self.replicas[client + 1])
            oracle = Pull(gaussian(Key(client, "centre"), self.federation.layout.numel).to(like))
            self.privates[client], uplink = self.method.respond(
                self.replicas[client + 1], self.privates[client], oracle, here
            )
            data = pack(uplink)
            self.method.validate(unpack(data, Payload, LIMIT_BYTES), here)
            if self.mirrors[client] is not None:
                packet = unpack(data, Payload, LIMIT_BYTES)
                self.mirrors[client] = self.method.advance(self.mirrors[client], packet, here)
            sent.append((client, data))
        here = Round(number, self.federation, asked=cohort(number))
        uplinks = ((client, unpack(data, Payload, LIMIT_BYTES)) for client, data in sent)
        self.server, downlink = self.method.step(self.replicas[0], self.server, uplinks, here)
        data = pack(downlink.broadcast)
        for node in range(CLIENTS + 1):
            # a client does not know the weights, and must not need them
            there = here if node == 0 else Round(number, on_client(self.federation, 1, node - 1).federation)
            self.replicas[node] = self.method.apply(self.replicas[node], unpack(data, Payload, LIMIT_BYTES), there)
        return Played(number, tuple(sent), data)


def replay(method: Method, federation: Federation, rounds: tuple[Played, ...]) -> Iterator[bytes]:
    """Digests of the replica and of the mirrors after each recorded round, by ``apply`` and ``advance`` alone."""
    replica, _ = method.begin(start_of(federation), federation)
    mirrors = [method.mirror(method.join(replica)) for _ in range(CLIENTS)]
    for played in rounds:
        for client, data in played.uplinks:
            if mirrors[client] is not None:
                packet, here = unpack(data, Payload, LIMIT_BYTES), on_client(federation, played.number, client)
                mirrors[client] = method.advance(mirrors[client], packet, here)
        there = Round(played.number, federation)
        replica = method.apply(replica, unpack(played.downlink, Payload, LIMIT_BYTES), there)
        yield state.digest((replica, tuple(mirrors)))


NUMEL_OF_REPLAY = 40_000  # more than torch gives to one thread


def main(file: Path, threads: int) -> None:
    """Replay the recorded runs of all forms and print one digest per line."""
    torch.set_num_threads(threads)
    federation = federation_of(NUMEL_OF_REPLAY, torch.float32)
    for label, recorded in state.load(file.read_bytes()):
        rounds = tuple(Played(*played) for played in recorded)
        print(label, b"".join(replay(forms()[label], federation, rounds)).hex())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
