"""FedAvg: the weighted mean of what the participants send.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep networks from decentralized
data", AISTATS 2017, https://arxiv.org/abs/1602.05629. With an unbiased compressor Q this is DCGD / Q-FedAvg: Khirirat,
Feyzmahdavian, Johansson, "Distributed learning with compressed gradients", 2018, https://arxiv.org/abs/1806.06573.

    client i in S:  m_i = Q(D_i)                            send m_i
    server:         G = sum_{i in S} p_i m_i / sum_{i in S} p_i
                    x <- x - eta G

S cohort; D_i = x - x_i^H after H local steps (or the gradient of f_i at x); p_i share of the examples; eta server rate;
Q in U(omega), an unbiased compressor. Without Q and with one full step it is gradient descent; with Q it converges to a
neighbourhood of size proportional to eta and omega.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.dcgd import descent_theory
from strategies.estimator import UPDATE, Estimator, gather, names_of
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import joint_omega
from thinwire.errors import ConfigError


@dataclass(frozen=True)
class FedAvg(Estimator):
    """Average the participants' updates; clients keep no state. The compressor must be unbiased."""

    name: ClassVar[str] = "fedavg"
    compressor: Compressor = field(default_factory=Identity)

    def begin(self, x0: Tensor, federation: Federation) -> None:
        """The server keeps nothing."""

    def join(self, x: Tensor, mirror: Tensor | None = None) -> None:
        """Clients keep nothing."""

    def respond(self, direction: Tensor, private: None, round: Round) -> tuple[None, Packet]:
        """Send Q(D_i)."""
        encoded = round.encode(UPDATE, self.compressor, direction)
        return None, {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: None,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[None, Tensor]:
        """G, the mean over those who answered."""
        return None, gather(uplinks, self.compressor, round).average()

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the update."""
        return {UPDATE: self.compressor}

    @property
    def sends_directions(self) -> bool:
        """Q(D_i)."""
        return True

    def direction(self, uplink: Packet, round: Round) -> Tensor:
        """Q(D_i)."""
        return round.decode(uplink, UPDATE, self.compressor, round.key(UPDATE, "up"))

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor: without feedback its error never comes back."""
        layout = federation.layout
        if self.compressor.omega(layout) is None:
            raise ConfigError(
                f"fedavg diverges or stalls with the biased compressor {self.compressor.name!r}: choose method ef21 or "
                f"ef14, or an unbiased compressor ({names_of(lambda form: form.omega(layout) is not None)})"
            )

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """Gradient descent's 1/L without compressor; DCGD's with one, or with a sample; nothing with a biased one."""
        if self.compressor.omega(federation.layout) is None:
            return Theory(Promise.NOTHING, 1 / constants.L)
        theory = descent_theory(joint_omega(self.compressor, federation, participation), constants)
        equal = len(set(federation.weights)) <= 1
        return theory if equal or participation == 1 else replace(theory, floor=None, proven=False)  # a ratio of sums
