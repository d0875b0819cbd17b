"""What the tests of the control service share: a run over real sockets on a problem with a known answer."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.app import respond
from client.desk import Desk
from client.fleet import FleetSession, SessionOptions
from client.store import MemoryClientStore
from server.control.callers import ControlOptions
from server.control.control import Control
from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from server.run_directory import RunDirectory
from strategies.flower import MethodStrategy, to_arrays
from strategies.problems import ridge
from thinwire.cli.controlling import controlled
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig
from thinwire.wire.operator import Operator

sys.path.append(str(Path(__file__).parents[1] / "protocol"))
from world import PlainWorkplace, PlainWorkshop

DEADLINE_SECONDS = 60.0
RUN = "0123456789abcdef" * 2
CLIENTS = 3
PROBLEM = ridge(0, CLIENTS, 40, 20, 10.0)
RATE = 0.5 / PROBLEM.L

OPTIONS: dict[str, Any] = {
    "clients": CLIENTS,
    "dtype": "float64",
    "rounds": 100_000,  # until it is stopped
    "method": {"name": "ef21"},
    "uplink": {"name": "top-k", "fraction": 0.25},
    "downlink": "identity",
    "optimiser": {"rate": RATE},
    "local": {"work": "full"},
    "participation": {"fraction": 1.0},
    "round": {"deadline_seconds": 20.0, "patience_seconds": 5.0},
    "evaluation": {"where": "none"},
    "checkpoint": {"every": 1_000},
}


@dataclass
class Bench(PlainWorkshop):
    """Opens places on the problem, and remembers with which configurations."""

    configurations: list[dict[str, Any]] = field(default_factory=list)

    def opened(self, configuration: str, clients: int) -> "Bench":
        self.configurations.append(json.loads(configuration))
        return self


class Server:
    """One server process's part in a run, in a thread."""

    bench: Bench
    outcomes: dict[str, str]  # how each client's session ended

    def __init__(self, folder: Path, options: dict[str, Any], control: ControlOptions | None = None) -> None:
        self.config = RunConfig.of({**OPTIONS, **options})
        self.strategy = MethodStrategy(self.config, layout=PROBLEM.layout)
        self.folder = RunDirectory(folder, mirrors=self.config.checkpoint.mirrors != "none")
        self.control: Control | None = None
        self.outcome: BaseException | None = None
        self.kept: list[RunConfig] = []
        self._options = control or ControlOptions()
        self._ready = threading.Event()
        self.grid = FleetGrid(FleetOptions(address="127.0.0.1:0"), int(RUN[:15], 16), self._event)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._ready.wait(DEADLINE_SECONDS)
        if self.control is None:
            raise self.outcome or AssertionError("no control")

    def _event(self, kind: str, identity: str, detail: str) -> None:
        self.folder.record(f"fleet-{kind}", {"client": identity, "detail": detail})

    def _serve(self) -> None:
        x0 = PROBLEM.layout.unflatten(PROBLEM.x0)
        try:
            keep = self.kept.append
            with controlled(RUN, self.config, self.folder, self._options, keep) as self.control:
                self.control.progress.connected = lambda: {node.name for node in self.grid.get_nodes()}
                self.strategy.steering = self.control
                self._ready.set()
                self.strategy.of_run(RUN, self.folder).start(self.grid, to_arrays(x0), None, DEADLINE_SECONDS)
        except BaseException as error:
            self.outcome = error
        finally:
            self._ready.set()

    def join(self) -> None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()

    def close(self) -> None:
        if self.control is not None and self._thread.is_alive():
            with suppress(ConfigError):
                self.control.stop("the test's end")
        self.join()
        self.grid.close()
        self.folder.close()

    @property
    def error(self) -> float:
        assert self.strategy.coordinator is not None
        ledger = self.strategy.coordinator.ledger
        return PROBLEM.error(self.strategy.method.model(ledger.replicated.replica.method, ledger.server))


@contextmanager
def clients(address: str, bench: Bench, names: list[str]) -> Iterator[dict[str, str]]:
    """Sessions in threads, with their states in memory; how each ended, by name."""
    outcomes: dict[str, str] = {}

    def session(name: str) -> FleetSession:
        store = MemoryClientStore()
        desk = Desk(name, "", bench.opened, lambda run: store)
        options = SessionOptions(address, name, first_wait_seconds=0.02)
        return FleetSession(options, lambda message, context: respond(desk, message))

    def take_part(name: str) -> None:
        try:
            outcomes[name] = sessions[name].run_forever()
        except ConfigError as error:
            outcomes[name] = str(error)

    sessions = {name: session(name) for name in names}
    threads = [threading.Thread(target=take_part, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        for one in sessions.values():
            one.stop()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[tuple[Server, Operator]]:
    """A run with its clients and an operator on this machine, until the block ends."""
    with ExitStack() as stack:
        server = Server(folder, options)
        stack.callback(server.close)
        server.bench = Bench(server.strategy.method, PROBLEM, 0)
        names = [f"client-{i}" for i in range(CLIENTS)]
        server.outcomes = stack.enter_context(clients(server.grid.address, server.bench, names))
        yield server, stack.enter_context(Operator.of_run(folder))


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {DEADLINE_SECONDS:.0f} s"
        time.sleep(0.01)
    return value


__all__ = ["Bench", "PlainWorkplace", "Server", "clients", "running", "wait_for"]
