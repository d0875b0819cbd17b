"""The Flower side: one Strategy that runs any method, on any of Flower's grids and ours."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging import INFO
from typing import Any, NoReturn

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from torch import Tensor

from compressors.base import DTYPES
from strategies.admission import Admission
from strategies.arrays import Arrays
from strategies.base import Federation, Method
from strategies.builder import build_method
from strategies.bundle import Bundle
from strategies.changes import check_step_alone
from strategies.coordinator import Coordinator, Decided
from strategies.grid_transport import GridTransport
from strategies.helm import Helm
from strategies.ledger import Ledger
from strategies.ordered import in_order
from strategies.replicated import Replicated, history_start
from strategies.roster import Roster
from strategies.steering import Steering, Stopped, Unsteered
from strategies.store import MemoryStore, Store
from thinwire.config import to_options
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.run_config import RunConfig
from thinwire.wire.codec import parse_codec
from thinwire.wire.exchange import new_run

LOCAL_ONLY = ("path", "root", "folder", "directory")  # task options that name a place on the server's own machine
SENT_TO_CLIENTS = ("seed", "dtype", "threads", "method", "uplink", "downlink", "optimiser", "local", "task", "order")


def to_arrays(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Named tensors as Flower arrays."""
    return ArrayRecord({name: Array(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()})


def from_arrays(arrays: ArrayRecord) -> dict[str, Tensor]:
    """Flower arrays as named tensors."""
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}


def method_of(config: RunConfig) -> Method:
    """The method of a run. Raises ConfigError."""
    work = str(config.local.get("work", "steps"))
    method = build_method(config.method, config.uplink, config.downlink, config.optimiser, work, local=config.local)
    return in_order(method, config.order, work, config.participation.fraction)


class MethodStrategy(Strategy):
    """A Flower Strategy that runs any Thinwire method, with compression both ways, exactly once.

    ``config`` is a RunConfig, or its options by keyword: ``MethodStrategy(method="ef21", uplink="top-k", clients=10)``.
    The clients must run Thinwire's ClientApp (``client.app``). ``start`` drives the rounds itself, with deadlines,
    repeats, checkpoints and resume; the ``configure_`` and ``aggregate_`` calls of other strategies mean nothing here.
    """

    def __init__(
        self,
        config: RunConfig | None = None,
        *,
        layout: Layout | None = None,
        buffers: Layout | None = None,
        store: Store | None = None,
        on_round: Callable[[Decided, Mapping[str, float]], None] | None = None,
        on_event: Callable[[str, Mapping[str, Any]], None] | None = None,
        **options: Any,
    ) -> None:
        self.config = config or RunConfig.of(options)
        if config is not None and options:
            raise ConfigError("give MethodStrategy either a RunConfig or options by keyword, not both")
        self.method = method_of(self.config)
        self._layout = layout
        self._buffers = buffers
        self._store: Store = store or MemoryStore(mirrors=self.method.mirrored)
        self._on_round = on_round
        self._on_event = on_event
        self._run = ""
        self.coordinator: Coordinator | None = None
        self.steering: Steering = Unsteered()
        self.resumed_rounds = 0
        self._simulated = False  # whether the grid's time is
        self.stopped = False  # whether whoever steers ended the last start before its time

    def of_run(
        self,
        run: str,
        store: Store,
        on_round: Callable[[Decided, Mapping[str, float]], None] | None = None,
        on_event: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> "MethodStrategy":
        """The same strategy for a named run with a durable store; for hosts that name the run themselves."""
        self._run, self._store, self._on_round, self._on_event = run, store, on_round, on_event
        return self

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int | None = None,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run up to round ``num_rounds`` (default: the configuration's), from the store's last state if it has one.

        ``timeout`` bounds the wait for the clients before the first round, in seconds; each round has its own deadline
        (``round.deadline_seconds``). ``train_config`` and ``evaluate_config`` are not used: the configuration is sent
        at the welcome. Returns Flower's Result; where whoever steers ended the run, as of the last round that was
        decided, with a checkpoint (``stopped``). Raises ConfigError and RoundError, and Stopped before there is a run.
        """
        if num_rounds:
            self.config = replace(self.config, rounds=num_rounds)
        dtype = DTYPES[self.config.dtype]
        tensors = from_arrays(initial_arrays)
        layout = self._layout or Layout(tuple(Entry(n, tuple(t.shape)) for n, t in tensors.items()))
        arrays = Arrays.of(tensors, layout, self._buffers, dtype)
        del tensors, initial_arrays  # or a whole run would hold them
        transport = GridTransport(grid)
        self._simulated = transport.simulated
        coordinator = self._open(transport, arrays, timeout)
        ledger = coordinator.ledger
        result = Result()
        if ledger.replicated.version == 0:
            self._evaluate(coordinator, arrays, 0, evaluate_fn, result)
        try:
            self._rounds(coordinator, arrays, evaluate_fn, result)
        except Stopped:
            self.stopped = True
        ledger.checkpoint()
        result.arrays = self._model(coordinator, arrays)
        return result

    def _rounds(
        self,
        coordinator: Coordinator,
        arrays: Arrays,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
        result: Result,
    ) -> None:
        """All rounds that are left. Raises Stopped where whoever steers ends the run."""
        shared = coordinator.ledger.replicated
        while shared.version < self.config.rounds:
            self.steering.between()
            if shared.version >= self.config.rounds:
                break  # there are fewer of them by now
            started = time.perf_counter()
            decided = coordinator.round()
            if self._simulated:
                took = time.perf_counter() - started
                decided = replace(decided, seconds=took, simulated_seconds=decided.seconds)
            result.train_metrics_clientapp[decided.round] = MetricRecord(dict(decided.metrics))
            metrics = self._evaluate(coordinator, arrays, decided.round, evaluate_fn, result)
            self._store.record("round", _row(decided, metrics))
            if self._on_round is not None:
                self._on_round(decided, metrics)

    def summary(self) -> None:
        """Log what is about to run."""
        log(INFO, "Thinwire: %s", json.dumps(to_options(self.config), default=str))

    def configure_train(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not part of how this strategy works; raises ConfigError."""
        raise ConfigError("MethodStrategy drives its rounds itself; call start(grid, initial_arrays, num_rounds)")

    aggregate_train = configure_train
    configure_evaluate = configure_train
    aggregate_evaluate = configure_train

    # -- opening a run -------------------------------------------------------------------------------------------

    def _open(self, transport: GridTransport, arrays: Arrays, timeout_seconds: float) -> Coordinator:
        """A new run, or the store's, with its roster present."""
        loaded = self._store.load()
        run = loaded[0].run if loaded else self._run or new_run()
        bundle = Bundle.of(self.method, arrays.buffer_layout)
        admission = Admission(transport, run, self._codecs(), self._configuration(), arrays.layout.digest, self._event)
        federation = Federation(arrays.layout, self.config.clients, self.config.seed, DTYPES[self.config.dtype])
        if loaded is None:
            ledger = self._begin(run, bundle, federation, arrays, admission, transport, timeout_seconds)
        else:
            saved, entries = loaded
            roster = Roster.restore(run, saved.clients)
            replicated = Replicated(bundle, saved.replica, saved.history, saved.round, arrays.frozen_bytes())
            ledger = Ledger(
                run, bundle, federation, self.config, replicated, saved.server, roster, self._store, saved.incarnation
            )
            ledger.personal.update(saved.personal)
            self.resumed_rounds = ledger.replay(entries)
            self._event("resumed", {"round": replicated.version, "replayed": self.resumed_rounds})
        coordinator = self.coordinator = Coordinator(ledger, transport, admission, self.steering)
        helm = Helm(coordinator, self._change)
        self._event("roster", helm.roster())
        self.steering.open(helm)
        return coordinator

    def _begin(
        self,
        run: str,
        bundle: Bundle,
        federation: Federation,
        arrays: Arrays,
        admission: Admission,
        transport: GridTransport,
        timeout_seconds: float,
    ) -> Ledger:
        """Wait for the clients, freeze the roster, weigh it, and write the first checkpoint."""
        names = admission.gather(self.config.clients, timeout_seconds, self.steering.gathering)
        roster = Roster.freeze(run, names)
        by_name = {name: node for node, name in admission.names.items()}
        for record in roster.clients:
            roster.seat(record, by_name[record.name])
        admission.welcome(roster, roster.clients)
        admission.listen(min(1.0, timeout_seconds))
        deadline = transport.now() + timeout_seconds
        while (missing := [r.name for r in roster.clients if not r.welcomed]) and not (
            admission.refused & {r.node for r in roster.clients}
        ):
            if transport.now() > deadline:
                raise ConfigError(f"client {missing[0]!r} did not follow its welcome within {timeout_seconds:.0f} s")
            self.steering.gathering()
            if not admission.busy():
                transport.pause(0.2)
            admission.greet()
            admission.welcome(roster, roster.clients)
            admission.listen(min(1.0, timeout_seconds))
        if missing:
            raise ConfigError(f"{admission.reasons.get(missing[0], f'client {missing[0]!r} was refused')}")
        roster.weigh(self.config.participation.weights)
        federation = roster.federated(federation)
        replica, server = bundle.begin(arrays.x, arrays.buffers, federation)
        replicated = Replicated(bundle, replica, history_start(run), 0, arrays.frozen_bytes())
        ledger = Ledger(run, bundle, federation, self.config, replicated, server, roster, self._store)
        ledger.checkpoint()
        return ledger

    def _change(self, config: RunConfig) -> Callable[[], None]:
        """Check that the run can go on with another configuration; what is returned puts it into use, between rounds.

        Raises ConfigError, also where the replicas would move by other rules than before.
        """
        coordinator, method = self.coordinator, method_of(config)
        assert coordinator is not None, "the run is open"
        ledger = coordinator.ledger
        check_step_alone(self.method, method)
        method.check(ledger.federation, config.participation.fraction)

        def adopt() -> None:
            told = self._configuration()
            self.config, self.method = config, method
            ledger.adopt(config, method)
            if self._configuration() != told:  # clients work by what they were told at their welcome
                coordinator.collector.welcome_anew(self._configuration())

        return adopt

    def _configuration(self) -> str:
        """What clients are told; never a path or an import."""
        options: dict[str, Any] = to_options(self.config)
        sent = {key: options[key] for key in SENT_TO_CLIENTS}
        sent["task"] = {key: value for key, value in sent["task"].items() if key not in LOCAL_ONLY}
        return json.dumps(sent, sort_keys=True)

    def _codecs(self) -> frozenset[str]:
        used = [*self.method.uplink.values(), *self.method.downlink.values()]
        names = frozenset({"identity"}).union(*(compressor.codecs for compressor in used))
        return frozenset().union(*(parse_codec(name).names() for name in names))  # "scaled(natural)" is two

    def _event(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._store.record(kind, fields)
        if self._on_event is not None:
            self._on_event(kind, fields)

    # -- evaluation ----------------------------------------------------------------------------------------------

    def _evaluate(
        self,
        coordinator: Coordinator,
        arrays: Arrays,
        number: int,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
        result: Result,
    ) -> dict[str, float]:
        """On the server, on the clients, or both; the server's word counts where both have one."""
        evaluation = self.config.evaluation
        if number % evaluation.every and number != self.config.rounds:
            return {}
        metrics: dict[str, float] = {}
        if evaluation.where in ("clients", "both") and number:
            theirs = coordinator.evaluate()
            result.evaluate_metrics_clientapp[number] = MetricRecord(dict(theirs))
            metrics |= {f"client_{name}": value for name, value in theirs.items()}
            if evaluation.where == "clients":
                metrics |= theirs
        if evaluate_fn is not None and evaluation.where in ("server", "both"):
            ours = evaluate_fn(number, self._model(coordinator, arrays))
            if ours is not None:
                result.evaluate_metrics_serverapp[number] = ours
                metrics |= {name: float(value) for name, value in ours.items() if isinstance(value, (int, float))}
        return metrics

    def _model(self, coordinator: Coordinator, arrays: Arrays) -> ArrayRecord:
        ledger = coordinator.ledger
        return to_arrays(arrays.named(*ledger.bundle.model(ledger.replicated.replica, ledger.server)))


def _row(decided: Decided, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One round as recorded; a metric, which clients may name, never takes the place of what the server counted."""
    row = {
        "round": decided.round,
        "attempt": decided.attempt,
        "seconds": round(decided.seconds, 6),
        "uplink_bytes": decided.uplink_bytes,
        "downlink_bytes": decided.downlink_bytes,
        "dense_bytes": decided.dense_bytes,
        "asked": decided.asked,
        "replied": decided.replied,
        "client_bytes": {str(client): pair for client, pair in decided.client_bytes.items()},
        "client_seconds": {str(client): round(seconds, 6) for client, seconds in decided.client_seconds.items()},
        "train": decided.metrics,
    }
    if decided.simulated_seconds is not None:
        row["simulated_seconds"] = round(decided.simulated_seconds, 6)
    if decided.downlink_error is not None:
        row["downlink_error"] = decided.downlink_error
    return {**metrics, **row}


__all__ = ["LOCAL_ONLY", "MethodStrategy", "from_arrays", "to_arrays"]
