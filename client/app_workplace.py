"""Somebody else's training function as a client's place in a run: arrays in, arrays out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.base import Federation, Local, Oracle
from strategies.bundle import Bundle, Replica
from strategies.cut import NamedArrays
from strategies.terms import Terms
from thinwire.errors import ConfigError, WireError
from thinwire.random import Key
from thinwire.wire.exchange import digest

Run = Callable[[NamedArrays], NamedArrays]
"""The app: a model's arrays to those that it answers with."""


@dataclass
class AppWorkplace:
    """``client.workplace.Workplace`` around an app, and the app's oracle: it can train, and that is all it can."""

    terms: Terms
    others: NamedArrays  # arrays that travel as they are, from the server
    run: Run
    rest: bytes = b""  # the same arrays as the app left them, packed
    examples: int = 0  # the app says so itself, in its metrics

    @property
    def bundle(self) -> Bundle:
        """The estimator of this client alone, and the downlink."""
        return self.terms.bundle

    @property
    def federation(self) -> Federation:
        """Of one."""
        return self.terms.federation

    @property
    def template(self) -> Replica:
        """A replica of the right structure."""
        return Replica(torch.zeros(self.terms.cut.layout.numel, dtype=self.terms.cut.dtype))

    @property
    def device(self) -> torch.device:
        """Flower's arrays are NumPy's."""
        return torch.device("cpu")

    @property
    def oracle(self) -> Oracle:
        """Itself."""
        return self

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        """One call of the app. Raises ConfigError where its arrays are not the model's."""
        if correction is not None:
            raise ConfigError("an app's own training takes no correction of its gradients")
        arrays = self.run(self.terms.cut.join(x, self.others))
        self.rest = self.terms.cut.rest(arrays)
        return Local(x - self.terms.cut.vector(arrays), 1, 1.0)

    def full(self, x: Tensor) -> Tensor:
        """Raises ConfigError."""
        raise ConfigError("an app's own training gives no gradients")

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """Raises ConfigError."""
        return self.full(x)

    def enter(self, buffers: Tensor | None) -> None:
        """Buffers are among the arrays."""

    def metrics(self) -> dict[str, float]:
        """None: the app's own pass through."""
        return {}

    def frozen_digest(self) -> bytes:
        """Nothing is frozen."""
        return digest(b"")

    def load_frozen(self, packed: bytes) -> None:
        """Raises WireError."""
        raise WireError("frozen parameters for an app that has none")

    def evaluate(self, x: Tensor, buffers: Tensor | None) -> tuple[int, dict[str, float]]:
        """One call of the app; what it says passes through."""
        self.run(self.terms.cut.join(x, self.others))
        return 0, {}
