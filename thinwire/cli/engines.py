"""What plays a simulation: this process with workers of its own, or Flower's engine on Ray."""

import importlib.util
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.app import desk_of, respond
from client.virtual import VirtualClients
from server.grids.answers import Answers, OfClients
from server.grids.in_process import InProcessGrid
from server.grids.simulated import SimulatedGrid
from server.grids.worker_processes import WorkerProcesses
from thinwire.errors import ConfigError
from thinwire.grid import WaitingGrid
from thinwire.run_config import RunConfig

from flwr.app import Context, Message  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip
from flwr.serverapp import Grid, ServerApp  # isort: skip
from flwr.serverapp.strategy import Result  # isort: skip

Start = Callable[[Grid], Result]
"""The server's side of a run on a grid."""


class Engine(ABC):
    """Plays one run after the other."""

    @abstractmethod
    def check(self, config: RunConfig) -> None:
        """Raise ConfigError for a run that this engine cannot play."""

    @abstractmethod
    def play(self, config: RunConfig, device: str, folder: Path, start: Start) -> Result:
        """One run; clients keep in ``folder`` what finds no room in memory."""


@dataclass(frozen=True)
class InProcess(Engine):
    """Clients in this process, or in ``workers`` of their own, with the same bits; on simulated time if asked for."""

    workers: int = 1

    def check(self, config: RunConfig) -> None:
        """A file of the simulation must fit the clients."""
        if self.workers < 1:
            raise ConfigError(f"workers = {self.workers} is below 1")
        for model in config.simulation.models() or ():
            model.of([f"client-{index}" for index in range(config.clients)], config.seed)

    def play(self, config: RunConfig, device: str, folder: Path, start: Start) -> Result:
        """On our own grid."""
        nodes = InProcessGrid(self._answers(config, device, folder), config.clients, run_id=1)
        models = config.simulation.models()
        grid: WaitingGrid = nodes if models is None else SimulatedGrid(nodes, *models, config.seed)
        try:
            return start(grid)
        finally:
            nodes.close()

    def _answers(self, config: RunConfig, device: str, folder: Path) -> Answers:
        if self.workers == 1:
            return OfClients(VirtualClients(config.task, device, folder).answer)
        settings = {"task": config.task, "device": device, "folder": str(folder.absolute())}
        return WorkerProcesses("client.virtual_worker", settings, self.workers)


@dataclass(frozen=True)
class OnFlower(Engine):
    """Flower's simulation engine on Ray: as many clients at a time as the machine has room for."""

    client_cpus: float = 1.0  # processor cores that each client at work takes
    client_gpus: float = 0.0  # share of a GPU that each takes: 0.25 lets four compute on one

    def check(self, config: RunConfig) -> None:
        """Ray must be there; time cannot be simulated."""
        if importlib.util.find_spec("ray") is None:
            raise ConfigError('--engine flower needs Ray: pip install "thinwire[ray]"')
        if not self.client_cpus > 0 or self.client_gpus < 0:
            raise ConfigError(
                f"client-cpus = {self.client_cpus} must be above 0, client-gpus = {self.client_gpus} at least 0"
            )
        cores = os.cpu_count() or 1
        if self.client_cpus > cores:
            raise ConfigError(f"client-cpus = {self.client_cpus:g} are more than the {cores} cores of this machine")
        if config.simulation.models() is not None:
            raise ConfigError("simulated time runs in process only: remove --engine flower, or the section simulation")

    def play(self, config: RunConfig, device: str, folder: Path, start: Start) -> Result:
        """On Flower's grid, in the thread that its engine gives the server."""
        results: list[Result] = []
        errors: list[BaseException] = []
        server_app = ServerApp()

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            try:
                results.append(start(grid))
            except BaseException as error:  # Flower would log it, and raise another in its place
                errors.append(error)

        resources = {"num_cpus": self.client_cpus, "num_gpus": self.client_gpus}
        _run_quietly(server_app, _client_app(config.task, device, folder.absolute()), config.clients, resources)
        if errors:
            raise errors[0]
        return results[0]


def _run_quietly(server_app: ServerApp, client_app: ClientApp, clients: int, resources: dict[str, float]) -> None:
    """Flower's engine without a word of Flower's or Ray's, unless it is an error."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of its own next version
    logger = logging.getLogger("flwr")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, and Flower's on this entry to its engine
        from flwr.simulation import run_simulation

        logger.setLevel(logging.ERROR)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        options: Any = {"client_resources": resources, "init_args": quiet}
        try:
            run_simulation(server_app, client_app, clients, backend_config=options)
        finally:
            logger.setLevel(level)


def _client_app(task: dict[str, Any], device: str, folder: Path) -> ClientApp:
    """Our ClientApp with its states in the run directory."""
    made = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        context.node_config = {**context.node_config, "state": str(folder), "device": device}
        return respond(desk_of(context, task), message)

    made.query("hello")(answer)
    made.query("welcome")(answer)
    made.train()(answer)
    made.evaluate()(answer)
    return made


def engine_of(name: str, workers: int, client_cpus: float, client_gpus: float) -> Engine:
    """The engine of the command line's flags. Raises ConfigError for flags of the other one."""
    if name == "flower":
        if workers != 1:
            raise ConfigError("--workers is for the engine in-process; Flower's takes --client-cpus and --client-gpus")
        return OnFlower(client_cpus, client_gpus)
    if (client_cpus, client_gpus) != (1.0, 0.0):
        raise ConfigError("--client-cpus and --client-gpus are for --engine flower; in process --workers says how many")
    return InProcess(workers)


__all__ = ["Engine", "InProcess", "OnFlower", "engine_of"]
