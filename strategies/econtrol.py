"""EControl: EF21 that also feeds its error back, by a controlled share of it.

Gao, Islamov, Stich, "EControl: fast distributed optimization with compression and error control", ICLR 2024,
https://arxiv.org/abs/2311.05645, Algorithm 1.

    client i in S:  c_i = C(control e_i + D_i - h_i)                         send c_i
                    e_i <- e_i + D_i - h_i - c_i ;  h_i <- h_i + c_i
    client i not in S:  e_i and h_i stay
    server:         h <- h + sum_{i in S} p_i c_i ;  x <- x - gamma h        h = sum p_i h_i over ALL n clients

h_i estimate of D_i, known to client i and, bit for bit, to the server; e_i sum of all that the estimate has missed so
far, local: lost, it begins again at 0; both start at 0; D_i stochastic gradient of f_i at x, or another direction of
descent; control the paper's eta: with 0 it is EF21, 0.1 suits compressors that keep a tenth, larger values are slower
and less stable; C in B(alpha), a contractive compressor; S cohort; p_i weights; gamma rate, in practice that of SGD.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from strategies.base import Federation, Packet, Round
from strategies.contraction import alpha_of
from strategies.theory import Constants, Promise, Theory
from strategies.tracking import Tracking


@dataclass(frozen=True)
class EControlClient:
    """The estimate that the server knows too; the error, and the compressor's warm start, which it does not."""

    h: Tensor
    e: Tensor
    warm: Any = None


@dataclass(frozen=True)
class EControl(Tracking):
    """EF21 with a share of the accumulated error. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "econtrol"
    control: float = 0.1  # eta in [0, 1]: the share of the accumulated error in each message; 0: EF21

    def __post_init__(self) -> None:
        if not 0 <= self.control <= 1:
            raise ValueError(f"control = {self.control} must lie in [0, 1]")

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EControlClient:
        """h_i as the server knows it, or 0; no error."""
        return EControlClient(self.estimate(x, mirror), torch.zeros_like(x))

    def respond(self, direction: Tensor, private: EControlClient, round: Round) -> tuple[EControlClient, Packet]:
        """Send C(control e_i + D_i - h_i); add what the server will decode to h_i, and what it misses to e_i."""
        difference = direction - private.h
        c, uplink = self.compress(self.control * private.e + difference, private.warm, round)
        return EControlClient(private.h + c.decoded, private.e + difference - c.decoded, c.warm), uplink

    def mirror(self, private: EControlClient) -> Tensor:
        """h_i."""
        return private.h

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``alpha/(20 L_mean)`` times the share of the clients that is asked: verified where ``control`` <= 2 alpha.

        Linear with full gradients, verified too. The paper's step has the same order and constants of several hundred.
        """
        alpha = alpha_of(self.compressor, federation.layout)
        return Theory(Promise.LINEAR, participation * alpha / (20 * constants.L_mean), proven=False)
