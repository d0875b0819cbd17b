"""The contract of a method: pure functions over explicit states, the same on every host.

Only ``respond``, ``step`` and ``apply`` hold maths. ``apply`` and ``advance`` run on several nodes that must agree on
every bit, so they use portable arithmetic only: separate elementwise + - * / in one dtype, integer operations, indexing
and casts (no ``alpha=``, ``addcmul``, ``lerp``, ``foreach``, matmul, reduction, sqrt, exp).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from compressors import ALONE, Compressor, Encoded, Expectation, Payload, Place, decode
from strategies.theory import Constants, Theory
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout
from thinwire.random import SHARED, Direction, Key

Packet = Mapping[str, Payload]
"""Named payloads: an uplink, a broadcast downlink, or a personal one."""

Decoder = Callable[[Payload, Expectation, Key, Any], Tensor]
"""``compressors.decode``, or what gives the same vectors: (payload, expectation, key, device) -> vector."""


@dataclass(frozen=True)
class Federation:
    """Who takes part and what is trained; frozen when the run starts."""

    layout: Layout
    clients: int  # n, the size of the roster
    seed: int = 0
    dtype: torch.dtype = torch.float32
    weights: tuple[float, ...] = ()  # p_i by roster index, summing to 1; known to the server, empty on a client
    banned: tuple[int, ...] = ()  # known to the server: clients that are out of the run for good; their weight is 0
    drained: tuple[int, ...] = ()  # known to the server: clients that no round asks for now; they keep their weight

    @property
    def members(self) -> tuple[int, ...]:
        """The clients that are in the run, ascending."""
        return tuple(client for client in range(self.clients) if client not in self.banned)

    @property
    def askable(self) -> tuple[int, ...]:
        """The members of whom a cohort is drawn, ascending."""
        return tuple(client for client in self.members if client not in self.drained)

    @staticmethod
    def uniform(layout: Layout, clients: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> "Federation":
        """Equal weights 1/n."""
        return Federation(layout, clients, seed, dtype, (1.0 / clients,) * clients)


class Watch(Protocol):
    """Measures how payloads are compressed, on a host that wants to know; changes no bit of them."""

    def encoding(self, name: str, compressor: Compressor, vector: Tensor, encode: Callable[[], Encoded]) -> Encoded:
        """What ``encode()`` returns, which compresses the vector into the payload of that name."""
        ...


@dataclass(frozen=True)
class Round:
    """Everything about one round that is not state."""

    number: int  # from 1
    federation: Federation
    client: int = SHARED  # on a client: its index in the roster
    place: Place = ALONE  # on a client: its place in the cohort
    asked: tuple[int, ...] = ()  # on the server: the cohort, ascending
    incarnation: int = 0
    personal: Packet = field(default_factory=dict)  # on a client: payloads for it alone
    watch: Watch | None = None  # on a host: who measures what ``encode`` does
    decoder: Decoder = field(default=decode, repr=False, compare=False)  # on a host: who has decoded some already

    def key(self, purpose: str, direction: Direction = "", client: int | None = None) -> Key:
        """The key of one purpose in this round; of this client unless another (or SHARED) is named."""
        who = self.client if client is None else client
        return Key(self.federation.seed, purpose, self.number, who, direction=direction)

    def encode(
        self,
        name: str,
        compressor: Compressor,
        vector: Tensor,
        warm: Any = None,
        *,
        direction: Direction = "up",
        layout: Layout | None = None,
    ) -> Encoded:
        """Compress one payload: of this client's uplink, or (``down``) of the broadcast downlink.

        ``layout`` is the vector's where it is not the federation's. Raises NonFinite.
        """
        up, layout = direction == "up", layout or self.federation.layout
        key, place = self.key(name, direction, None if up else SHARED), self.place if up else ALONE

        def encode() -> Encoded:
            return compressor.encode(vector, layout, key, place, warm)

        return encode() if self.watch is None else self.watch.encoding(name, compressor, vector, encode)

    def decode(self, packet: Packet, name: str, compressor: Compressor, key: Key, device: Any = "cpu") -> Tensor:
        """Decode one payload that ``compressor`` must have made. Raises WireError on anything else."""
        if name not in packet:
            raise WireError(f"payload {name!r} is missing; the message has {', '.join(sorted(packet)) or 'none'}")
        expectation = Expectation(self.federation.layout, self.federation.dtype, compressor.codecs)
        return self.decoder(packet[name], expectation, key, device)


@dataclass(frozen=True)
class Downlink:
    """What the server says after a round."""

    broadcast: Packet
    personal: Mapping[int, Packet] = field(default_factory=dict)  # never touches the replica


class Asks(Enum):
    """Who must answer a round, when it is not an explicit tuple of client indices."""

    SAMPLE = "sample"  # a cohort of the configured participation
    ALL = "all"  # everyone; the missing are asked again


@dataclass(frozen=True)
class Local:
    """What came out of local training."""

    update: Tensor  # x_before - x_after (a descent direction times the local rate), flat, the run's dtype
    steps: int  # local steps taken
    rate: float  # local learning rate
    memory: Any = None  # a state: what the local optimiser keeps for the client's next training; None: nothing


class Oracle(Protocol):
    """All that a method knows of the task: a client's function f_i at a point, or its operator F_i.

    Points and answers are flat vectors of the federation's layout. The same key gives the same examples and the same
    dropout, so that two points can be evaluated on one minibatch.
    """

    def full(self, x: Tensor) -> Tensor:
        """The gradient (or operator) over all examples of the client."""
        ...

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The gradient over the minibatch that the key draws."""
        ...

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        """Local training from x as the oracle is configured (steps or epochs, rate, batch, optimiser).

        Each local step adds ``correction`` to its gradient. What the local optimiser keeps from round to round is no
        business of a method's: ``strategies.remembering``.
        """
        ...


@dataclass(frozen=True)
class Method(ABC):
    """A method: a frozen dataclass of options and pure functions over three states.

    Replica: what all nodes agree on, bit for bit. Server: the server's own. Private: one client's own; a part of it may
    be mirrored on the server. States are frozen dataclasses that ``thinwire.state`` can save.
    ``respond`` never consumes the private state that it is given (a rollback needs it); ``step`` and ``apply`` may
    reuse the memory of theirs. The mirrored part of what ``join`` gives may not depend on the replica. A new method is
    one new file in ``strategies/``.
    """

    name: ClassVar[str]
    plain_local_steps: ClassVar[bool] = False
    """Whether local training must be plain SGD, for its normalised path is taken for a gradient."""

    @abstractmethod
    def begin(self, x0: Tensor, federation: Federation) -> tuple[Any, Any]:
        """The replica and the server state before round 1, from the initial model (flat)."""

    @abstractmethod
    def join(self, replica: Any, mirror: Tensor | None = None) -> Any:
        """The private state of a new, late or reset client; asks the oracle nothing.

        With ``mirror``, the mirrored part is that and only the local part starts anew.
        """

    def asks(self, replica: Any, server: Any, round: int) -> Asks | tuple[int, ...]:
        """Who must answer this round.

        Of clients that are named (a tuple, ascending, not empty) any one is enough to decide the round: the method
        keeps what came and names the others again.
        """
        return Asks.SAMPLE

    @property
    def needs_everyone(self) -> bool:
        """Whether some rounds cannot be decided before every member has answered, so that none may be drained."""
        return False

    def leave(self, server: Any, federation: Federation) -> Any:
        """The server state after a client has left for good; its weight is 0 in ``federation`` by now.

        What is summed over all members in several rounds begins anew. What derives from mirrors is ``rebuild``'s.
        """
        return server

    @abstractmethod
    def respond(self, replica: Any, private: Any, oracle: Oracle, round: Round) -> tuple[Any, Packet]:
        """On a client: the next private state and the uplink."""

    @abstractmethod
    def step(
        self, replica: Any, server: Any, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[Any, Downlink]:
        """On the server: the next server state and the downlink.

        ``uplinks`` come in ascending client index and may be read once; each is decoded when it is reached.
        """

    @abstractmethod
    def apply(self, replica: Any, downlink: Packet, round: Round) -> Any:
        """On every node: the next replica. Portable arithmetic only."""

    @abstractmethod
    def model(self, replica: Any, server: Any = None) -> Tensor:
        """The model to evaluate and keep: flat; the server's own when its state is given."""

    def mirror(self, private: Any) -> Tensor | None:
        """The part of a private state that the server must know (h_i, g_i), or None."""
        return None

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """The mirror after an applied uplink: the same code, so the same bits, as in ``respond``."""
        raise AssertionError(f"{type(self).__name__} mirrors nothing")

    def rebuild(self, server: Any, mirrors: Iterable[Tensor], federation: Federation) -> Any:
        """The server state with what it derives from the mirrors (h = sum p_i h_i) summed anew, in ascending index."""
        return server

    @property
    @abstractmethod
    def uplink(self) -> Mapping[str, Compressor]:
        """The payload names that an uplink may carry and the compressor of each; anything else is refused."""

    @property
    def optional(self) -> frozenset[str]:
        """The payloads that an uplink may lack; without any other it is refused."""
        return frozenset()

    @property
    def exclusive(self) -> frozenset[str]:
        """Payloads of which every uplink carries exactly one, if there are any; which one it is says something."""
        return frozenset()

    @property
    @abstractmethod
    def downlink(self) -> Mapping[str, Compressor]:
        """The same for the broadcast downlink."""

    @property
    def memoryless_downlink(self) -> bool:
        """Whether the last downlink alone gives the replica, whatever the client held before."""
        return False

    @property
    def mirrored(self) -> bool:
        """Whether private states have a mirrored part."""
        return False

    def validate(self, uplink: Packet, round: Round) -> None:
        """Decode an uplink for nothing but errors, as it arrives, so that ``step`` never meets a hostile one.

        ``round.client`` is its sender. Raises WireError.
        """
        unknown = sorted(set(uplink) - set(self.uplink))
        if unknown:
            raise WireError(f"unexpected payload {unknown[0]!r}; this method's uplinks carry {', '.join(self.uplink)}")
        missing = sorted(set(self.uplink) - set(uplink) - self.optional - self.exclusive)
        if missing:
            raise WireError(f"payload {missing[0]!r} is missing; this method's uplinks carry {', '.join(self.uplink)}")
        if self.exclusive and len(self.exclusive & set(uplink)) != 1:
            raise WireError(f"an uplink of this method carries exactly one of {', '.join(sorted(self.exclusive))}")
        for name in uplink:
            round.decode(uplink, name, self.uplink[name], round.key(name, "up"))

    @property
    def sends_directions(self) -> bool:
        """Whether an uplink alone tells the client's direction, as far as its compressor lets it."""
        return False

    def direction(self, uplink: Packet, round: Round) -> Tensor | None:
        """The direction in an uplink of ``round.client``; None unless ``sends_directions``."""
        return None

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse what theory refuses, naming what would fit. Raises ConfigError. Called when the run is built."""
        return

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The paper's step for a problem with these constants, and its promise. Raises ConfigError where it has none.

        For full gradients (or operators): with minibatches and local steps a promise of LINEAR becomes a NEIGHBOURHOOD.
        """
        raise ConfigError(f"method {self.name} has no theory for its step; tune its rate")

    def at(self, rate: float) -> "Method":
        """The same method with another step gamma, as ``theory`` gives it and a search varies it."""
        raise ConfigError(f"method {self.name} has no step to set")
