"""What the server knows and has decided: replica, server state, chains and mirrors, in step with the journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from torch import Tensor

from compressors import ALONE, NonFinite, Payload, decode, find
from strategies.base import Asks, Decoder, Downlink, Federation, Method, Packet, Round
from strategies.bundle import METHOD, Bundle
from strategies.checked import Checked
from strategies.compression_error import CompressionError
from strategies.replicated import Replicated
from strategies.roster import ClientRecord, Roster
from strategies.store import Entry, Saved, Store
from thinwire.errors import ConfigError, RoundError
from thinwire.random import SHARED, Key, choose
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import chain_over, digest
from thinwire.wire.packet import pack, unpack


class Uplinks(Sequence[tuple[int, Packet]]):
    """A round's checked uplinks by ascending client index, unpacked one at a time; may be read several times."""

    def __init__(
        self,
        clients: Sequence[int],
        get: Callable[[int], bytes],
        digests: Mapping[int, bytes] | None = None,
        checked: Checked | None = None,
    ) -> None:
        self.clients = clients
        self._get = get
        self.digests = digests or {}  # those known already
        self.checked = checked or Checked(0)  # what is unpacked and decoded already

    def __len__(self) -> int:
        return len(self.clients)

    @overload
    def __getitem__(self, place: int) -> tuple[int, Packet]: ...
    @overload
    def __getitem__(self, place: slice) -> "Uplinks": ...
    def __getitem__(self, place: int | slice) -> "tuple[int, Packet] | Uplinks":
        if isinstance(place, slice):
            return Uplinks(self.clients[place], self._get, self.digests, self.checked)
        client = self.clients[place]
        packet = self.checked.packet(client)
        if packet is not None:
            return client, packet
        data = self._get(client)
        return client, unpack(data, Payload, len(data), verified=True)

    def raw(self) -> Iterator[tuple[int, bytes]]:
        """The packed uplinks, one at a time."""
        return ((client, self._get(client)) for client in self.clients)


@dataclass
class Ledger:
    """Decides rounds. Whatever it has decided is in the journal before anybody hears of it."""

    run: str
    bundle: Bundle
    federation: Federation
    config: RunConfig
    replicated: Replicated
    server: Any
    roster: Roster
    store: Store
    incarnation: int = 0
    personal: dict[int, bytes] = field(default_factory=dict)  # packed payloads for single clients, not given yet
    downlink_error: float | None = None  # relative squared error of the last downlink

    def __post_init__(self) -> None:
        self.federation = self.roster.federated(self.federation)

    @property
    def next_round(self) -> int:
        """The round that is to be decided, from 1."""
        return self.replicated.version + 1

    def cohort(self, attempt: int) -> list[int]:
        """Who must answer the next round, ascending; a sample is drawn by the run's seed, of all who may be asked."""
        asks = self.bundle.asks(self.replicated.replica, self.server, self.next_round)
        askable = self.federation.askable
        if asks is Asks.ALL:
            return list(askable)
        if isinstance(asks, tuple):
            return sorted(set(asks) & set(self.federation.members))
        key = Key(self.config.seed, "cohort", self.next_round, tensor=attempt)
        count = self.config.participation.cohort(len(askable))
        return [askable[int(i)] for i in choose(key, len(askable), count)]

    @property
    def sampled(self) -> bool:
        """Whether the next round asks a sample, of which anybody may be missing."""
        return self.bundle.asks(self.replicated.replica, self.server, self.next_round) is Asks.SAMPLE

    def needed(self, asked: Sequence[int]) -> int:
        """Replies without which the round is repeated: all of them where all are asked, one of those that are named."""
        asks = self.bundle.asks(self.replicated.replica, self.server, self.next_round)
        if asks is Asks.SAMPLE:
            return min(self.config.round.minimum_replies, len(asked))
        return len(asked) if asks is Asks.ALL else 1

    def decide(self, attempt: int, asked: Sequence[int], uplinks: Uplinks) -> None:
        """Step, journal, commit. Raises RoundError when the step diverged; the state is then not to be used further."""
        packed = self._step(asked, uplinks)
        packed_digest = digest(packed)
        self.store.append(
            Entry(self.next_round, attempt, tuple(asked), uplinks.raw(), packed, uplinks.digests, packed_digest)
        )
        self._commit(uplinks, packed, packed_digest)
        if self.replicated.version % self.config.checkpoint.every == 0:
            self.checkpoint()

    def replay(self, entries: Iterator[Entry]) -> int:
        """Decide again what the journal says, after a restart; the number of rounds. RoundError on a difference.

        A checkpoint follows: what the journal holds behind a gap must not come before what is decided from now on.
        """
        count = 0
        for entry in entries:
            if entry.round != self.next_round:
                raise RoundError(
                    f"the journal goes on with round {entry.round}; the checkpoint needs {self.next_round}"
                )
            raw = dict(entry.uplinks)
            uplinks = Uplinks(sorted(raw), raw.__getitem__)
            if self._step(entry.asked, uplinks) != entry.downlink:
                raise RoundError(
                    f"round {entry.round} of the journal gives another downlink when it is repeated; "
                    "resume with the software, threads and device that wrote it"
                )
            self._commit(uplinks, entry.downlink, digest(entry.downlink))
            count += 1
        self.checkpoint()
        return count

    def checkpoint(self) -> None:
        """Write everything; the journal starts anew."""
        shared = self.replicated
        self.store.checkpoint(
            Saved(
                self.run,
                self.incarnation,
                shared.version,
                shared.history,
                shared.replica,
                self.server,
                self.roster.saved(),
                tuple(sorted(self.personal.items())),
            )
        )

    def recover(self, record: ClientRecord) -> tuple[bytes, list[int]]:
        """A client lost its private state: the packed mirror to give back, or whom the loss made newcomers.

        With mirrors, the client alone is reset, and only if its mirror is damaged; without, all clients are.
        """
        if self.store.mirrors:
            mirror = self.store.read_mirror(record.index, record.chain)
            if mirror is not None:
                payload = find("identity")().encode(mirror, self.federation.layout, Key(0), ALONE).payload
                return pack({"mirror": payload}), []
        lost = self._begin_anew(record)
        self.checkpoint()
        return b"", lost

    def check_drain(self, record: ClientRecord, undo: bool = False) -> None:
        """Refuse to ask a client no more, where rounds would wait for it; or (``undo``) again. Raises ConfigError."""
        if undo and not record.drained:
            raise ConfigError(f"client {record.name!r} is not drained")
        if undo:
            return
        left, members = len(self.federation.askable) - 1, len(self.federation.members)
        if record.ban is not None or record.drained:
            raise ConfigError(f"client {record.name!r} is {'drained' if record.ban is None else 'banned'} already")
        if left < 1:
            raise ConfigError(f"client {record.name!r} is the last that rounds may ask; stop the run instead")
        method = self.bundle.method
        if method.needs_everyone:
            raise ConfigError(f"some rounds of method {method.name} need every client: ban {record.name!r}, or stop")
        method.check(self.federation, self.config.participation.fraction * left / members)

    def drain(self, record: ClientRecord, undo: bool = False) -> None:
        """Ask a client no more, or (``undo``) again; its weight and its state stay. Raises ConfigError."""
        self.check_drain(record, undo)
        record.drained = not undo
        self.federation = self.roster.federated(self.federation)
        self.checkpoint()

    def check_ban(self, record: ClientRecord) -> None:
        """Refuse to put a client out that is out, or that nobody would be left without. Raises ConfigError."""
        if record.ban is not None:
            raise ConfigError(f"client {record.name!r} is banned already")
        if self.federation.askable in ((), (record.index,)):
            raise ConfigError(f"client {record.name!r} is the last that rounds may ask; stop the run instead")

    def ban(self, record: ClientRecord, reason: str) -> list[int]:
        """Put a client out of the run: its weight goes to the others, and what derives from mirrors is summed anew.

        Without mirrors nobody can tell its part in such sums from the others': then all clients are newcomers again.
        Returns whom the ban made newcomers, besides the banned one. Raises ConfigError.
        """
        self.check_ban(record)
        record.ban, record.drained = reason, False
        self.personal.pop(record.index, None)
        self.roster.weigh(self.config.participation.weights)
        self.federation = self.roster.federated(self.federation)
        self.server = self.bundle.method.leave(self.server, self.federation)
        lost = [record.index]
        if self.bundle.method.mirrored:
            lost = self._begin_anew(record)
        else:
            self.roster.reset(record)
        self.checkpoint()
        return [index for index in lost if index != record.index]

    def adopt(self, config: RunConfig, method: Method) -> None:
        """Go on with another configuration, whose method moves replicas and mirrors by the same rules."""
        self.config = config
        self.bundle = replace(self.bundle, method=method)
        self.replicated.bundle = self.bundle

    def round_of(
        self, number: int, client: int = SHARED, asked: Sequence[int] = (), decoder: Decoder = decode
    ) -> Round:
        """The round as the maths sees it."""
        return Round(number, self.federation, client, asked=tuple(asked), incarnation=self.incarnation, decoder=decoder)

    def _begin_anew(self, record: ClientRecord) -> list[int]:
        """Make a client a newcomer, and all whose mirrors are not there with it; sum the mirrors anew."""
        lost = [c.index for c in self.roster.clients if self._lost(c, record)]
        for index in lost:
            self.roster.reset(self.roster.clients[index])
        mirrors = (self._mirror(client) for client in self.roster.clients)
        self.server = self.bundle.method.rebuild(self.server, mirrors, self.federation)
        return lost

    def _lost(self, client: ClientRecord, first: ClientRecord) -> bool:
        if client is first or not self.store.mirrors:
            return True
        return not client.fresh and self.store.read_mirror(client.index, client.chain) is None

    def _mirror(self, client: ClientRecord) -> Tensor:
        """The server's copy of a client's mirrored state."""
        mirror = self._find_mirror(client)
        if mirror is None:
            raise RoundError(f"the mirror of client {client.name!r} is lost, and its sum cannot be made anew")
        return mirror

    def _find_mirror(self, client: ClientRecord) -> Tensor | None:
        if client.fresh:
            return self.bundle.method.mirror(self.bundle.join(self.replicated.replica))
        return self.store.read_mirror(client.index, client.chain) if self.store.mirrors else None

    def _step(self, asked: Sequence[int], uplinks: Uplinks) -> bytes:
        compression = CompressionError(self.next_round)
        round = replace(self.round_of(self.next_round, SHARED, asked, uplinks.checked.take), watch=compression)
        try:
            self.server, downlink = self.bundle.step(self.replicated.replica, self.server, uplinks, round)
        except NonFinite as error:
            raise RoundError(
                f"round {self.next_round} diverged: {error}; lower the learning rates (local.rate, optimiser.rate)"
            ) from None
        self.downlink_error = compression.of(name.removeprefix(f"{METHOD}.") for name in downlink.broadcast)
        for client in uplinks.clients:
            self.personal.pop(client, None)  # it has had its own
        self._keep_personal(downlink)
        return pack(downlink.broadcast)

    def _keep_personal(self, downlink: Downlink) -> None:
        for client, packet in downlink.personal.items():
            self.personal[client] = pack(packet)

    def _commit(self, uplinks: Uplinks, packed: bytes, packed_digest: bytes) -> None:
        """Make a journalled decision part of the state."""
        mirrored = self.bundle.method.mirrored
        for client, raw in uplinks.raw():
            record = self.roster.clients[client]
            chain = chain_over(record.chain, uplinks.digests.get(client) or digest(raw))
            if mirrored and self.store.mirrors:
                self._advance_mirror(record, chain, raw)
            record.chain = chain
            record.fresh = not mirrored
        self.replicated.apply(packed, packed_digest, self.round_of(self.next_round))

    def _advance_mirror(self, record: ClientRecord, chain: bytes, raw: bytes) -> None:
        """Write the mirror after an uplink. In a replay it is mostly there already, and that of long ago is gone.

        Without the mirror before it nothing is written; if the client ever needs it, the client is reset.
        """
        if self.store.read_mirror(record.index, chain) is not None:
            return
        before = self._find_mirror(record)
        if before is not None:
            packet = unpack(raw, Payload, len(raw), verified=True)
            after = self.bundle.advance(before, packet, self.round_of(self.next_round, record.index))
            self.store.write_mirror(record.index, chain, after)
