"""Compression for a Flower strategy that exists already: FedAvg, FedAdam, Krum, or one of somebody's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import INFO
from typing import Any

import numpy as np

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from strategies.builder import PROBE, build_compressor
from strategies.channels import Direct
from strategies.compressed_grid import CompressedGrid
from strategies.correspondence import Correspondence
from strategies.cut import STATISTICS, Cut, NamedArrays
from strategies.exchange_meter import Exchange
from strategies.terms import Options, Terms, section
from thinwire.errors import ConfigError

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord  # isort: skip
from flwr.common.logger import log  # isort: skip
from flwr.serverapp import Grid  # isort: skip
from flwr.serverapp.strategy import (  # isort: skip
    Bulyan,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    MultiKrum,
    Result,
    Strategy,
)

TOP_K = {"name": "top-k", "fraction": 0.05}
"""What is sent either way unless something else is asked for: every twentieth entry."""

SELECTING = (Bulyan, FedMedian, FedTrimmedAvg, MultiKrum)
"""Strategies that compare clients instead of adding them up; Krum is a MultiKrum."""

SELDOM = 0.1
"""Of the clients in a round: below it a client comes back after more than ten rounds."""

QUANTISER_OMEGA = 1.0
"""Unbiased compressors up to this omega lose less than they keep: good enough for a model itself."""


class Compressed(Strategy):
    """A Flower strategy whose models cross the network compressed, both ways, exactly once.

    ``Compressed(FedAvg(fraction_train=0.5), uplink="top-k", downlink="top-k")``, and the mod ``client.mod.compressed``
    in the ClientApp. The wrapped strategy sees whole models: x as it left it, and of client i ``x - D_i``, where D_i is
    what the uplinks tell of the direction from the model that the client got to the one that it sends.

    ``uplink``, ``downlink``: a compressor by name, or with options, ``{"name": "top-k", "fraction": 0.02}``.
    ``downlink.channel``: ``ef21-p`` (the change of the model, compressed; clients keep a copy), ``direct`` (the model
    itself, compressed afresh; for quantisers), ``dense``. Where unsaid it is ``ef21-p``, ``dense`` for ``identity``,
    and ``direct`` for a quantiser under a strategy that asks less than a tenth of the clients in a round: the changes
    that such a client has missed are as large as the model.
    ``method``: how the uplink makes up for what it drops. ``ef14`` adds it to the client's next message, and the server
    keeps nothing: for strategies that add updates up. ``ef21`` keeps on both ends what the server knows of each
    client's direction, so that each client's model is whole at any time: for strategies that compare clients, whose
    default it is (Krum, Bulyan, medians, trimmed means). Any other estimator that follows single clients will do.
    ``dense``: patterns of the names of arrays that travel as they are, beside integers and booleans.
    ``record``: the name of the record with the model; default: the first record of arrays in the first message.

    ``exchanges`` holds the bytes of each batch of messages; those of training are added to the metrics of its round
    (``uplink-bytes``, ``downlink-bytes``, ``dense-bytes``). Raises ConfigError when its options do not fit each other.
    """

    def __init__(
        self,
        strategy: Strategy,
        uplink: str | Options = TOP_K,
        downlink: str | Options = TOP_K,
        method: str | Options = "",
        *,
        dense: Sequence[str] = STATISTICS,
        record: str = "",
        seed: int = 0,
    ) -> None:
        if isinstance(strategy, type):
            raise ConfigError(f"{strategy.__name__} is a class; give an instance: Compressed({strategy.__name__}(...))")
        if not isinstance(strategy, Strategy):
            raise ConfigError(
                f"{type(strategy).__name__} is no strategy of flwr.serverapp.strategy (flwr.server has old ones)"
            )
        self.strategy = strategy
        self.method = section(method or ("ef21" if isinstance(strategy, SELECTING) else "ef14"))
        self.uplink = section(uplink)
        self.downlink = section(downlink)
        self.exchanges: list[Exchange] = []
        self._before = 0  # exchanges when the round's training was configured
        self._dense = (dense,) if isinstance(dense, str) else tuple(dense)
        self._record = record
        self._seed = seed
        seldom = isinstance(strategy, FedAvg) and strategy.fraction_train < SELDOM
        if seldom and "channel" not in self.downlink:
            omega = build_compressor(self.downlink, "downlink").omega(PROBE)
            if omega is not None and 0 < omega <= QUANTISER_OMEGA:
                self.downlink["channel"] = Direct.name
        Terms(Cut.of({"x": np.zeros(1)}), self.method, self.uplink, self.downlink).descent  # noqa: B018  checks them

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """As the wrapped strategy's, with its own ``start`` where it has one.

        Raises ConfigError for models with arrays that cannot be carried, RoundError when the model diverges.
        """
        thin = self.grid(grid)
        given: dict[str, Any] = {"num_rounds": num_rounds, "timeout": timeout, "evaluate_fn": evaluate_fn}
        given |= {"train_config": train_config, "evaluate_config": evaluate_config}
        if type(self.strategy).start is Strategy.start:
            return super().start(thin, initial_arrays, **given)
        result = self.strategy.start(thin, initial_arrays, **given)
        for number, exchange in enumerate((e for e in self.exchanges if e.kind == "train"), 1):
            metrics = result.train_metrics_clientapp.get(number)
            result.train_metrics_clientapp[number] = _with_bytes(metrics, exchange)
        return result

    def grid(self, grid: Grid) -> CompressedGrid:
        """The same grid with compression, for whoever writes the loop of rounds by hand: a run of its own."""
        thin = CompressedGrid(grid, self._begin, self._record)
        self.exchanges = thin.exchanges
        return thin

    def _begin(self, arrays: NamedArrays) -> Correspondence:
        cut = Cut.of(arrays, self._dense)
        return Correspondence(Terms(cut, self.method, self.uplink, self.downlink, self._seed), arrays)

    # -- the wrapped strategy's ----------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The wrapped strategy's messages, which the grid compresses. Raises ConfigError on a grid that does not."""
        self._before = len(self.exchanges)
        return self.strategy.configure_train(server_round, arrays, config, _thin(grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The wrapped strategy's, with the round's bytes among the metrics."""
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        trained = [exchange for exchange in self.exchanges[self._before :] if exchange.kind == "train"]
        return arrays, _with_bytes(metrics, trained[-1]) if trained else metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As ``configure_train``."""
        return self.strategy.configure_evaluate(server_round, arrays, config, _thin(grid))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The wrapped strategy's."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log what travels, and the wrapped strategy's summary."""
        log(INFO, "\t├──> Thinwire: %s up, %s down, %s", *(_text(o) for o in (self.uplink, self.downlink, self.method)))
        self.strategy.summary()


def _thin(grid: Grid) -> CompressedGrid:
    if not isinstance(grid, CompressedGrid):
        raise ConfigError("Compressed must be the outermost strategy: Compressed(Other(FedAvg(...)))")
    return grid


def _with_bytes(metrics: MetricRecord | None, exchange: Exchange) -> MetricRecord:
    return MetricRecord({**(metrics or {}), **exchange.metrics})


def _text(options: Mapping[str, Any]) -> str:
    beside = ", ".join(f"{key} = {value}" for key, value in options.items() if key != "name")
    return f"{options['name']} ({beside})" if beside else str(options["name"])
