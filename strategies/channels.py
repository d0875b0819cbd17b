"""Downlink channels: how the server's model x reaches the clients, who hold a replica w of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.contraction import as_contraction, check_contraction
from strategies.theory import Constants, Promise, Theory
from thinwire.layout import Layout
from thinwire.random import SHARED

MODEL = "model"
"""The name of the downlink's payload."""


@dataclass(frozen=True)
class Channel(ABC):
    """The downlink half of ``Descent``. The replica starts as x0 on every node."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def memoryless(self) -> bool:
        """Whether a downlink alone gives the replica, whatever was there before."""

    @property
    @abstractmethod
    def operator(self) -> Compressor:
        """What compresses the downlink's payload."""

    @abstractmethod
    def send(self, x: Tensor, replica: Tensor, round: Round, name: str = MODEL) -> Packet:
        """On the server: the downlink that brings x nearer to the clients, as the payload of that name."""

    @abstractmethod
    def apply(self, replica: Tensor, downlink: Packet, round: Round, name: str = MODEL) -> Tensor:
        """On every node: the next replica. Portable arithmetic only."""

    def check(self, layout: Layout) -> None:
        """Refuse a compressor that theory refuses here, naming what fits. Raises ConfigError."""
        return

    def narrow(self, theory: Theory, constants: Constants, federation: Federation) -> Theory:
        """What is left of a theory for a dense downlink."""
        return theory

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """The payload names of the broadcast and the compressor of each."""
        return {MODEL: self.operator}

    def encode(self, vector: Tensor, round: Round, name: str) -> Packet:
        """The vector as this channel's packet."""
        return {name: round.encode(name, self.operator, vector, direction="down").payload}

    def decode(self, replica: Tensor, downlink: Packet, round: Round, name: str) -> Tensor:
        """The vector of a packet, beside the replica."""
        return round.decode(downlink, name, self.operator, round.key(name, "down", SHARED), replica.device)


@dataclass(frozen=True)
class Dense(Channel):
    """Send x as it is: w = x."""

    name: ClassVar[str] = "dense"

    @property
    def memoryless(self) -> bool:
        """The downlink is the model."""
        return True

    @property
    def operator(self) -> Compressor:
        """Nothing is dropped."""
        return Identity()

    def send(self, x: Tensor, replica: Tensor, round: Round, name: str = MODEL) -> Packet:
        """Send x."""
        return self.encode(x, round, name)

    def apply(self, replica: Tensor, downlink: Packet, round: Round, name: str = MODEL) -> Tensor:
        """w <- x."""
        return self.decode(replica, downlink, round, name)


@dataclass(frozen=True)
class EF21P(Channel):
    """EF21-P: ``p = C(x - w); w <- w + p`` on every node, C contractive (unbiased ones are scaled).

    Gruntkowska, Tyurin, Richtarik, "EF21-P and friends", ICML 2023, https://arxiv.org/abs/2209.15218.
    """

    name: ClassVar[str] = "ef21-p"
    compressor: Compressor = field(default_factory=Identity)

    @cached_property
    def contraction(self) -> Compressor:
        """C in B(alpha)."""
        return as_contraction(self.compressor)

    @property
    def memoryless(self) -> bool:
        """Every p must be heard."""
        return False

    @property
    def operator(self) -> Compressor:
        """C."""
        return self.contraction

    def send(self, x: Tensor, replica: Tensor, round: Round, name: str = MODEL) -> Packet:
        """Send p = C(x - w)."""
        return self.encode(x - replica, round, name)

    def apply(self, replica: Tensor, downlink: Packet, round: Round, name: str = MODEL) -> Tensor:
        """w <- w + p."""
        return replica + self.decode(replica, downlink, round, name)

    def check(self, layout: Layout) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, layout, f"downlink channel {self.name}")

    def narrow(self, theory: Theory, constants: Constants, federation: Federation) -> Theory:
        """The step is at most alpha/(4L), verified where the paper's constants are far smaller."""
        alpha = self.contraction.alpha(federation.layout)
        assert alpha is not None
        if alpha == 1:
            return theory
        rate = min(theory.rate, alpha / (4 * constants.L))
        return replace(theory, rate=rate, contraction=theory.contraction * rate / theory.rate, floor=None, proven=False)


@dataclass(frozen=True)
class Direct(Channel):
    """Send w = Q(x) afresh each round, for clients that keep no state; converges to the compressor's own error."""

    name: ClassVar[str] = "direct"
    compressor: Compressor = field(default_factory=Identity)

    @property
    def memoryless(self) -> bool:
        """The downlink is the (compressed) model."""
        return True

    @property
    def operator(self) -> Compressor:
        """Q."""
        return self.compressor

    def send(self, x: Tensor, replica: Tensor, round: Round, name: str = MODEL) -> Packet:
        """Send Q(x)."""
        return self.encode(x, round, name)

    def apply(self, replica: Tensor, downlink: Packet, round: Round, name: str = MODEL) -> Tensor:
        """w <- Q(x)."""
        return self.decode(replica, downlink, round, name)

    def check(self, layout: Layout) -> None:
        """Refuse a compressor of which theory says nothing."""
        check_contraction(self.compressor, layout, f"downlink channel {self.name}")

    def narrow(self, theory: Theory, constants: Constants, federation: Federation) -> Theory:
        """Gradients are taken at Q(x): a neighbourhood at best, unless Q(x) = x."""
        if self.compressor.omega(federation.layout) == 0 or theory.promise is Promise.NOTHING:
            return theory
        return replace(theory, promise=Promise.NEIGHBOURHOOD, floor=None, proven=False)
