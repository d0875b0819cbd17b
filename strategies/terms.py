"""What both ends of a compressed exchange must agree on: the model's arrays, and what is done to them either way."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from strategies.alone import Alone
from strategies.base import Federation
from strategies.builder import build_method
from strategies.bundle import Bundle
from strategies.channels import Channel
from strategies.cut import Cut
from strategies.descent import Descent
from strategies.estimator import Estimator
from strategies.registry import registry
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout
from thinwire.wire.exchange import digest

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Terms:
    """The terms under which a server and a client that know nothing of each other's training exchange models.

    ``method`` names an estimator (``ef14``, ``ef21``, ``diana``, ...), ``uplink`` and ``downlink`` compressors, with
    their options as in a run's configuration. Raises ConfigError when they are built and do not fit.
    """

    cut: Cut
    method: Options
    uplink: Options
    downlink: Options
    seed: int = 0

    @cached_property
    def descent(self) -> Descent:
        """The client's half of the uplink, and the downlink."""
        built = build_method(self.method, self.uplink, self.downlink)
        known = sorted(name for name, kind in registry().items() if issubclass(kind, Estimator))
        if not isinstance(built, Descent):
            raise ConfigError(f"method {built.name!r} decides rounds itself; within another strategy: {known}")
        tiny = Federation.uniform(Layout.flat(1), 1)
        if not built.mirrored and built.estimator.begin(torch.zeros(1), tiny) is not None:
            raise ConfigError(f"method {built.estimator.name!r} keeps sums over all clients; choose another of {known}")
        built.check(self.federation, 1.0)
        return replace(built, estimator=Alone(built.estimator.compressor, built.estimator))

    @property
    def alone(self) -> Alone:
        """The server's half of the uplink."""
        estimator = self.descent.estimator
        assert isinstance(estimator, Alone)
        return estimator

    @property
    def channel(self) -> Channel:
        """The downlink."""
        return self.descent.channel

    @cached_property
    def bundle(self) -> Bundle:
        """As the protocol wants it."""
        return Bundle(self.descent)

    @cached_property
    def federation(self) -> Federation:
        """Every client is one by itself."""
        return Federation(self.cut.layout, 1, self.seed, self.cut.dtype, (1.0,))

    def pack(self) -> str:
        """As JSON, for the clients."""
        options = {"method": self.method, "uplink": self.uplink, "downlink": self.downlink, "seed": self.seed}
        return json.dumps({**options, "arrays": self.cut.to_plain()}, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def read(text: str) -> "Terms":
        """From a server's JSON. Raises WireError when it is malformed."""
        try:
            plain = json.loads(text)
            sections = {name: dict(plain[name]) for name in ("method", "uplink", "downlink")}
            return Terms(Cut.of_plain(plain["arrays"]), seed=int(plain["seed"]), **sections)
        except (ValueError, LookupError, TypeError, RecursionError):
            raise WireError("the server's terms of compression are malformed") from None


def section(options: str | Options) -> dict[str, Any]:
    """A method or a compressor by its bare name, or by its options. Raises ConfigError for what has no name."""
    if isinstance(options, str):
        return {"name": options}
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise ConfigError(f"{options!r} names nothing; write 'top-k', or {{'name': 'top-k', 'fraction': 0.02}}")
    return dict(options)


def index_of(client: str) -> int:
    """The number under which a client draws its randomness: 31 bits of its name, the same on both ends."""
    return int.from_bytes(digest(f"client {client}".encode())[:4], "little") >> 1
