"""The order of a client's units beside any method: GraB, PairBalance and CD-GraB in federated training.

A unit is an example or a microbatch. A client goes through its units in an order of its own, sketches the gradient that
each one yields, and once a pass is over places units by signs, so that the gradients of the next pass balance
(``strategies.balancing`` has the papers and the rule). Who finds the signs:

    random   nobody: an independent random order for every pass (random reshuffling, the baseline)
    grab     the client, from each gradient less the mean of the pass before
    id-grab  the client, from differences of consecutive units
    cd-grab  the server, from the sketched differences of all clients: one running sum, pair by pair, client by client
    hybrid   the same, each client's own sum added: for partial participation, where one sum for all does harm
    auto     cd-grab where everyone takes part in every round, else hybrid

The server has the differences from sketches that clients send or, where a round is one unit and the uplink is that
unit's gradient (``work = minibatch`` with fedavg), from what it receives anyway. It sends signs, one bit per pair, and
neither orders nor gradients. Signs that never come (a lost message, a new client) cost the gain of their pairs: a coin
places those. The order is private state, so it is rolled back with an uplink that was lost, and starts anew, at random,
where the state is lost.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor

from compressors import Compressor, Payload
from compressors.base import DTYPE_NAMES
from strategies.balancing import Order, Signs, balance, coordinate, next_order, next_order_of_units, pairs
from strategies.base import Asks, Downlink, Federation, Method, Packet, Round
from strategies.descent import Work
from strategies.order_pass import ORDER, SIGNS, UNKNOWN, Pass, filled, next_units, pairs_of, signed
from strategies.sketch import Rows, Sketch, pack_rows, unpack_rows
from strategies.theory import Constants, Theory
from thinwire.config import build, nearest
from thinwire.errors import ConfigError, WireError
from thinwire.random import Key, permutation

Scheme = Literal["random", "grab", "id-grab", "cd-grab", "hybrid", "auto"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
COORDINATED: tuple[Scheme, ...] = ("cd-grab", "hybrid", "auto")
HEAD = struct.Struct("<IIQI")  # rows, entries of each, number of the pass that the first belongs to, its units
MOST_PAIRS = 1 << 20
MOST_BUCKETS = 1 << 16
MOST_PASSES = 1 << 62


@dataclass(frozen=True)
class OrderOptions:
    """The section ``order`` of run.toml."""

    name: Scheme = "random"
    unit: Literal["batch", "example"] = "batch"  # what is ordered: microbatches of ``local.batch``, or examples
    source: Literal["auto", "sketches", "gradients"] = "auto"  # of a coordinated order: sent, or received anyway
    sketch: int = 128  # numbers that stand for a gradient, at most 65,536; well above the differences' effective rank

    def __post_init__(self) -> None:
        if self.name not in SCHEMES:
            raise ValueError(f"name = {self.name!r}{nearest(str(self.name), SCHEMES)}")
        if self.unit not in ("batch", "example"):
            raise ValueError(f"unit = {self.unit!r}; allowed: batch, example")
        if self.source not in ("auto", "sketches", "gradients"):
            raise ValueError(f"source = {self.source!r}; allowed: auto, sketches, gradients")
        if not 1 <= self.sketch <= MOST_BUCKETS:
            raise ValueError(f"sketch = {self.sketch}; allowed: 1 to {MOST_BUCKETS}")


class Units(Protocol):
    """An oracle whose examples can be gone through in a given order."""

    def units(self, unit: str) -> int:
        """How many units the client has."""
        ...

    def window(self, unit: str, work: str) -> int:
        """How many units one call of ``local`` (work steps) or ``sample`` (work minibatch) goes through."""
        ...

    def following(
        self, unit: str, window: Sequence[int], observe: Callable[[Tensor], None]
    ) -> AbstractContextManager[None]:
        """Within it, ``local`` and ``sample`` use the units of ``window``, in order.

        ``observe`` gets the gradients of consecutive units as they are computed, each once: one flat vector, or a
        matrix with a row per unit.
        """
        ...


@dataclass(frozen=True)
class OrderedClient:
    """The method's private state, and the order once the first round has begun it."""

    private: Any
    pass_: Pass | None = None


@dataclass(frozen=True)
class OrderedServer:
    """The method's server state, and the running sums of the walk; empty where clients find their own signs.

    A client's own sum ends with its pass, the shared one when every client has begun another pass since it began.
    """

    server: Any
    total: Tensor  # s, float64, of k entries
    passes: Tensor  # int64: the pass of each client, -1 before its first differences
    begun: Tensor  # int64: its pass when s began
    own: Tensor  # float64 (n, k): each client's sum, for the hybrid; else (0, 0)
    carry: Tensor  # float64 (n, k): sketch of each client's last gradient, for gradients received; else (0, 0)
    told: Tensor  # int64: the pass that each client said it began
    positions: Tensor  # int64: units of it received; -1 before its first word
    units: Tensor  # int64: of a pass


@dataclass
class _Watcher:
    """Collects the sketches of a window while the gradients go by."""

    sketch: Sketch
    skip: int  # units of the window that are not looked at
    rows: list[Tensor] = field(default_factory=list)

    def __call__(self, gradients: Tensor) -> None:
        vectors = gradients if gradients.dim() == 2 else gradients[None]
        skipped = min(self.skip, len(vectors))
        self.skip -= skipped
        if skipped < len(vectors):
            self.rows.append(self.sketch(vectors[skipped:]))

    def sketches(self) -> Rows:
        """One row per unit that was looked at."""
        if not self.rows:
            return np.zeros((0, self.sketch.buckets))
        return np.asarray(torch.cat(self.rows).cpu().double().numpy())


@dataclass(frozen=True)
class Ordered(Method):
    """Any method, with its clients' units in an order; see the module."""

    name: ClassVar[str] = "ordered"  # a frame like Descent: ``order.name`` puts a method into it
    method: Method
    options: OrderOptions
    work: Work = "steps"
    full_participation: bool = True

    @property
    def scheme(self) -> Scheme:
        """The scheme, with ``auto`` decided."""
        if self.options.name != "auto":
            return self.options.name
        return "cd-grab" if self.full_participation else "hybrid"

    # -- the order -----------------------------------------------------------------------------------------------

    def respond(self, replica: Any, private: OrderedClient, oracle: Any, round: Round) -> tuple[OrderedClient, Packet]:
        """The method's answer along the order; for a coordinated one, the sketched differences beside it."""
        units: Units = oracle
        unit, key = self.options.unit, round.key(ORDER)
        count = units.units(unit)
        begun = private.pass_ or Pass(torch.from_numpy(permutation(key.at("first", round=0), count)))
        now = self._turn(signed(begun, round.personal), key)
        length = units.window(unit, self.work)
        window = next_units(now, length)
        if self.from_gradients:
            return self._untold(now, window, oracle, replica, private, round)
        watcher = _Watcher(self._sketch(round.federation), max(0, length - count))
        with units.following(unit, window, watcher):
            after, uplink = self.method.respond(replica, private.private, oracle, round)
        begun_pass = now.number
        now, differences = self._watched(now, length, watcher.sketches(), round.number)
        packet = dict(uplink)
        if len(differences):
            packet[ORDER] = self._content(differences, begun_pass, count, round)
        return OrderedClient(after, now), packet

    def _content(self, differences: Rows, number: int, units: int, round: Round) -> Payload:
        head = HEAD.pack(len(differences), self.options.sketch, number, units)
        return pack_rows(differences, ORDER, DTYPE_NAMES[round.federation.dtype], head)

    def _untold(
        self, now: Pass, window: Sequence[int], oracle: Any, replica: Any, private: OrderedClient, round: Round
    ) -> tuple[OrderedClient, Packet]:
        """One unit, whose gradient the server receives: only the beginning of a pass is told."""
        with oracle.following(self.options.unit, window, lambda gradient: None):
            after, uplink = self.method.respond(replica, private.private, oracle, round)
        packet, place, count = dict(uplink), now.position, len(now.order)
        if place == 0:
            packet[ORDER] = self._content(np.zeros((0, self.options.sketch)), now.number, count, round)
        second = place % 2 == 1
        then = replace(now, position=place + 1, awaited=round.number if second else 0, first=place // 2, count=1)
        return OrderedClient(after, then), packet

    @property
    def from_gradients(self) -> bool:
        """Whether the server finds the differences in what it receives anyway."""
        fits = self.work == "minibatch" and self.options.unit == "batch" and self.method.sends_directions
        return fits and self.options.source != "sketches" and self.scheme in COORDINATED

    def _sketch(self, federation: Federation) -> Sketch:
        return Sketch(self.options.sketch, Key(federation.seed, ORDER))

    def _turn(self, now: Pass, key: Key) -> Pass:
        """The next pass, once this one is done: its order from the signs, those done of it already in front."""
        count = len(now.order)
        if now.position < count:
            return now
        order: Order = now.order.cpu().numpy()
        signs: Signs = now.signs.cpu().numpy()
        signs = signs if len(signs) else np.full(self._slots(count), UNKNOWN, np.uint8)
        if self.scheme == "random" or bool((signs == UNKNOWN).all()):
            fresh = order[permutation(key.at(f"pass {now.number + 1}", round=0), count)]
        else:
            coins = (key.at(f"coins {now.number + 1}", round=0).words(len(signs)) >> np.uint64(63)).astype(np.uint8)
            known = np.where(signs == UNKNOWN, coins, signs).astype(np.uint8)
            fresh = (next_order_of_units if self.scheme == "grab" else next_order)(order, known)
        done = (now.position - count) % count if count else 0
        head = order[:done]
        rest = fresh[~np.isin(fresh, head)] if done else fresh
        return replace(
            now,
            order=torch.from_numpy(np.concatenate([head, rest]).astype(np.int64)),
            position=done,
            signs=now.ahead,
            ahead=torch.zeros(0, dtype=torch.uint8),
            number=now.number + 1,
            awaited=0,
            total=None,
        )

    def _slots(self, count: int) -> int:
        return count if self.scheme == "grab" else pairs(count)

    def _watched(self, now: Pass, length: int, sketches: Rows, number: int) -> tuple[Pass, Rows]:
        """The pass after a window of ``length`` units, the last of which were sketched; and what the server needs."""
        count, nothing = len(now.order), np.zeros((0, self.options.sketch))
        end = now.position + length
        if self.scheme == "random" or not count:
            return replace(now, position=end), nothing
        seen = range(end - len(sketches), end)  # positions, counted from the start of this pass
        base = seen[0] // count if len(seen) else end // count
        shown = replace(now, position=end - base * count)
        if base:  # whole passes went by unseen
            blank = torch.zeros(0, dtype=torch.uint8)
            shown = replace(shown, signs=blank, ahead=blank, carry=None, total=None)
        places = [position - base * count for position in seen]
        if self.scheme == "grab":
            return self._grab(shown, places, sketches), nothing
        differences, slots, carry = pairs_of(places, sketches, count, None if base else now.carry)
        shown = replace(shown, carry=carry)
        if not slots:
            return replace(shown, awaited=0), nothing
        if self.scheme == "id-grab":
            return filled(*self._balanced(shown, differences), slots[0], pairs(count)), nothing
        return replace(shown, awaited=number, first=slots[0], count=len(slots)), differences

    def _grab(self, now: Pass, places: Sequence[int], sketches: Rows) -> Pass:
        """Signs of single units, from sketches less the mean of the pass before (of this window, in the first)."""
        if not len(sketches):
            return now
        count = len(now.order)
        mean = sketches.mean(0) if now.mean is None else now.mean.cpu().numpy()
        now, signs = self._balanced(now, sketches - mean)
        share = min(1.0, len(sketches) / count)
        moved = (1 - share) * mean + share * sketches.mean(0)
        return filled(replace(now, mean=torch.from_numpy(moved)), signs, places[0], count)

    def _balanced(self, now: Pass, rows: Rows) -> tuple[Pass, Signs]:
        """The client's own walk, which goes on where the last round of this pass left it."""
        total = np.zeros(self.options.sketch) if now.total is None else now.total.cpu().numpy().copy()
        signs = balance(total, rows)
        return replace(now, total=torch.from_numpy(total)), signs

    # -- the server ----------------------------------------------------------------------------------------------

    def step(
        self, replica: Any, server: Any, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[Any, Downlink]:
        """The method's step; and for every client that sent differences, their signs."""
        sketches: dict[int, tuple[int, Rows]] = {}
        received: dict[int, tuple[Tensor, tuple[int, int] | None]] = {}

        def passing() -> Iterable[tuple[int, Packet]]:
            for client, packet in uplinks:
                if self.from_gradients:
                    received[client] = self._received(client, packet, round)
                elif ORDER in packet:
                    number, rows, _ = self._rows(packet[ORDER])
                    sketches[client] = number, rows
                yield client, _without(packet)

        inner, downlink = self.method.step(replica, server.server, passing(), round)
        personal = {client: dict(own) for client, own in downlink.personal.items()}
        if received:
            server, sketches = _paired(server, received)
        walked, found = self._walk(server, sketches)
        for client, signs in found.items():
            content = Payload(
                ORDER,
                DTYPE_NAMES[round.federation.dtype],
                SIGNS.pack(round.number, len(signs)),
                (np.packbits(signs).tobytes(),),
            )
            personal.setdefault(client, {})[ORDER] = content
        return replace(walked, server=inner), Downlink(downlink.broadcast, personal)

    def _received(self, client: int, packet: Packet, round: Round) -> tuple[Tensor, tuple[int, int] | None]:
        """The sketch of the gradient in an uplink, and (pass, units) where the client says that it begins a pass."""
        direction = self.method.direction(_without(packet), replace(round, client=client))
        assert direction is not None, "such a method was refused"
        begins = None
        if ORDER in packet:
            number, _, units = self._rows(packet[ORDER])
            begins = number, units
        return self._sketch(round.federation)(direction).double(), begins

    def _walk(
        self, server: OrderedServer, sketches: Mapping[int, tuple[int, Rows]]
    ) -> tuple[OrderedServer, dict[int, Signs]]:
        """The sums after the differences of a round, pair by pair and client by client; and the signs."""
        clients = sorted(sketches)
        if not clients:
            return server, {}
        total, passes, begun, own = (t.clone() for t in (server.total, server.passes, server.begun, server.own))
        for client in clients:
            number = sketches[client][0]
            if len(own) and number != int(passes[client]):
                own[client] = 0.0
            passes[client] = number
        heard = passes >= 0
        if bool((passes[heard] != begun[heard]).all()):
            total.zero_()
            begun = passes.clone()
        sums = [own[client].numpy() for client in clients] if len(own) else []
        weight = 1.0 if sums else 0.0
        signs = coordinate([sketches[client][1] for client in clients], weight, total.numpy(), sums)
        return replace(server, total=total, passes=passes, begun=begun, own=own), dict(zip(clients, signs, strict=True))

    def _rows(self, payload: Payload) -> tuple[int, Rows, int]:
        """The pass, the differences of one uplink, and the units of a pass. Raises WireError on anything else."""
        if self.scheme not in COORDINATED or payload.codec != ORDER or len(payload.parameters) != HEAD.size:
            raise WireError(f"unexpected payload {ORDER!r} of codec {payload.codec!r}")
        count, buckets, number, units = HEAD.unpack(payload.parameters)
        least, most = (0, 0) if self.from_gradients else (1, MOST_PAIRS)
        if buckets != self.options.sketch or not least <= count <= most or not units:
            raise WireError(
                f"{count} sketches of {buckets} entries, of {units} units; {least} to {most} of "
                f"{self.options.sketch} are allowed"
            )
        if number >= MOST_PASSES:
            raise WireError(f"differences of pass {number}; fewer than {MOST_PASSES} are allowed")
        return number, unpack_rows(payload, count, buckets), units

    def validate(self, uplink: Packet, round: Round) -> None:
        """The differences, then what the method says of its own. Raises WireError."""
        if ORDER in uplink:
            self._rows(uplink[ORDER])
        self.method.validate(_without(uplink), round)

    # -- the method as it is -------------------------------------------------------------------------------------

    def begin(self, x0: Tensor, federation: Federation) -> tuple[Any, Any]:
        """The method's, and sums of zero."""
        replica, server = self.method.begin(x0, federation)
        clients = federation.clients if self.scheme in COORDINATED else 0
        none = torch.full((clients,), -1, dtype=torch.int64)
        buckets = self.options.sketch
        received = clients if self.from_gradients else 0
        return replica, OrderedServer(
            server,
            total=_zeros(buckets),
            passes=none,
            begun=none.clone(),
            own=_zeros(clients, buckets) if self.scheme == "hybrid" else _zeros(0, 0),
            carry=_zeros(received, buckets if received else 0),
            told=none[:received].clone(),
            positions=none[:received].clone(),
            units=none[:received].clone(),
        )

    def join(self, replica: Any, mirror: Tensor | None = None) -> OrderedClient:
        """The method's, and an order that the first round draws."""
        return OrderedClient(self.method.join(replica, mirror))

    def asks(self, replica: Any, server: Any, round: int) -> Asks | tuple[int, ...]:
        """As the method asks."""
        return self.method.asks(replica, server.server, round)

    @property
    def needs_everyone(self) -> bool:
        """As the method does."""
        return self.method.needs_everyone

    def leave(self, server: Any, federation: Federation) -> Any:
        """The method's; nobody waits for the client's next pass."""
        passes, begun, gone = server.passes.clone(), server.begun.clone(), list(federation.banned)
        if len(passes):
            passes[gone] = begun[gone] = -1
        return replace(server, server=self.method.leave(server.server, federation), passes=passes, begun=begun)

    def apply(self, replica: Any, downlink: Packet, round: Round) -> Any:
        """The method's."""
        return self.method.apply(replica, downlink, round)

    def model(self, replica: Any, server: Any = None) -> Tensor:
        """The method's."""
        return self.method.model(replica, None if server is None else server.server)

    def mirror(self, private: OrderedClient) -> Tensor | None:
        """The method's; the order is nobody else's."""
        return self.method.mirror(private.private)

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """The method's."""
        return self.method.advance(mirror, _without(uplink), round)

    def rebuild(self, server: Any, mirrors: Iterable[Tensor], federation: Federation) -> Any:
        """The method's."""
        return replace(server, server=self.method.rebuild(server.server, mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """The method's; the differences are checked apart."""
        return self.method.uplink

    @property
    def optional(self) -> frozenset[str]:
        """The method's."""
        return self.method.optional

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """The method's."""
        return self.method.downlink

    @property
    def memoryless_downlink(self) -> bool:
        """As the method's is."""
        return self.method.memoryless_downlink

    @property
    def mirrored(self) -> bool:
        """As the method is."""
        return self.method.mirrored

    def check(self, federation: Federation, participation: float) -> None:
        """What the method refuses, and an order where no units are gone through."""
        self.method.check(federation, participation)
        self.check_work()

    def check_work(self) -> None:
        """Refuse work that goes through no units, and gradients as a source where none are sent. Raises ConfigError."""
        if self.work == "full":
            raise ConfigError("order.name needs units to order: choose local.work = steps or minibatch, not full")
        if self.options.source == "gradients" and not self.from_gradients:
            raise ConfigError(
                "order.source = gradients needs local.work = minibatch, order.unit = batch, a coordinated order, and a "
                "method whose uplink is the gradient itself (fedavg); choose order.source = sketches"
            )

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The method's: the order changes what noise is left, not the step."""
        return self.method.theory(constants, federation, participation)

    def at(self, rate: float) -> "Ordered":
        """The method at another step."""
        return replace(self, method=self.method.at(rate))


def _paired(
    server: OrderedServer, received: Mapping[int, tuple[Tensor, tuple[int, int] | None]]
) -> tuple[OrderedServer, dict[int, tuple[int, Rows]]]:
    """Differences of consecutive gradients of each client, pairs counted from where it began its pass."""
    carry, positions, units = server.carry.clone(), server.positions.clone(), server.units.clone()
    told, sketches = server.told.clone(), {}
    for client, (row, begins) in received.items():
        if begins is not None:
            told[client], units[client], positions[client] = begins[0], begins[1], 0
        place = int(positions[client])
        if place < 0:
            continue
        if place % 2 == 1 and place < int(units[client]):
            sketches[client] = int(told[client]), (carry[client] - row)[None].numpy()
        carry[client] = row
        positions[client] = place + 1
    return replace(server, carry=carry, told=told, positions=positions, units=units), sketches


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _without(packet: Packet) -> Packet:
    return {name: payload for name, payload in packet.items() if name != ORDER}


def in_order(method: Method, order: Mapping[str, Any], work: str, participation: float = 1.0) -> Method:
    """The method with its clients' units in the order of the section ``order``; as it is where that is random.

    ``participation`` decides what ``auto`` means, on the server. Raises ConfigError on unknown keys and values.
    """
    options = build(OrderOptions, order, "order")
    if options.name == "random":
        return method
    found = Ordered(method, options, cast(Work, work), participation >= 1)
    found.check_work()
    return found


__all__ = ["ORDER", "SCHEMES", "OrderOptions", "Ordered", "OrderedClient", "Pass", "Units", "in_order"]
