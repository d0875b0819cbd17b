"""``thinwire simulate``: a federation of virtual clients in this process, every byte packed and counted."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from rich.console import Console

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.virtual import VirtualClients
from server.evaluation import ServerModel
from server.run_directory import RunDirectory, new_run_folder
from strategies.coordinator import Decided
from strategies.flower import MethodStrategy, from_arrays
from thinwire.cli.cross_device import fitted
from thinwire.cli.engines import Engine, InProcess
from thinwire.cli.interruption import EndsAfterRound, Interruption, interruptible
from thinwire.cli.logs import say
from thinwire.cli.monitoring import Monitoring, observe
from thinwire.cli.outcome import Outcome
from thinwire.cli.pictures import describe, draw_runs, legend
from thinwire.cli.report import Totals, comparison, watcher
from thinwire.cli.run_log import RunLog
from thinwire.config import to_options
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import new_run

from flwr.serverapp import Grid  # isort: skip
from flwr.serverapp.strategy import Result  # isort: skip

YARDSTICK = "dense FedAvg"
GATHER_SECONDS = 3600.0  # virtual clients are all there; thousands of welcomes take their time
IN_PROCESS = InProcess()
CLIENTS = "clients"  # folder of the run directory where client states lie that find no room in memory, while it runs


@interruptible
def run_simulation(
    options: Mapping[str, Any],
    out: Path | None,
    *,
    baseline: bool,
    as_json: bool,
    interruption: Interruption,
    engine: Engine = IN_PROCESS,
) -> Outcome:
    """The run, and dense FedAvg beside it as the yardstick; prints a table or one JSON object."""
    plain = {key: value for key, value in options.items() if key != "server"}
    plain, notes = fitted(plain)
    config = RunConfig.of(plain)
    monitoring = replace(Monitoring.within(options.get("server")), metrics="")  # a simulation is not scraped
    monitoring.check()
    _open(config, "auto")  # what is wrong with the run is told before the yardstick takes its time
    engine.check(config)
    path = new_run_folder(out, str(config.method["name"]))
    for note in notes:
        say(note, "chosen")
    runs: dict[str, tuple[Totals, str]] = {}
    if baseline and not _is_dense_fedavg(config):
        yardstick = simulate(dense_fedavg(config), path / "fedavg", YARDSTICK, engine=engine, interruption=interruption)
        if interruption.by is not None:
            return yardstick
        runs[YARDSTICK] = yardstick.totals, str(yardstick.run_dir)
    title = str(config.method["name"])
    outcome = simulate(config, path, title, engine=engine, monitoring=monitoring, interruption=interruption)
    folders = {legend(config): path} | {name: Path(folder) for name, (_, folder) in runs.items()}
    runs = {title: (outcome.totals, str(path)), **runs}
    pictures = draw_runs(path, describe(config), folders)
    if as_json:
        fields = outcome.as_json()
        if YARDSTICK in runs:
            fields["baseline"] = replace(outcome, config=dense_fedavg(config), totals=runs[YARDSTICK][0]).as_json()
            fields["baseline"]["run_dir"] = runs[YARDSTICK][1]
        print(json.dumps(fields))
    else:
        Console().print(comparison(runs))
        print(f"run directory: {path}")
        for picture in pictures[:1]:
            print(f"picture: {picture}")
    return outcome


def dense_fedavg(config: RunConfig) -> RunConfig:
    """The same run as plain FedAvg, float32 both ways."""
    return replace(
        config,
        method={"name": "fedavg"},
        uplink={"name": "identity"},
        downlink={"name": "identity"},
        optimiser={"name": "sgd"},
    )


def _is_dense_fedavg(config: RunConfig) -> bool:
    return (config.method["name"], config.uplink.get("name"), config.downlink.get("name")) == (
        "fedavg",
        "identity",
        "identity",
    )


def simulate(
    config: RunConfig,
    path: Path,
    title: str = "",
    device: str = "auto",
    engine: Engine = IN_PROCESS,
    monitoring: Monitoring = Monitoring(),  # noqa: B008  a value
    interruption: Interruption | None = None,
) -> Outcome:
    """One run; writes its run directory (config, metrics per round, final model).

    The same model and the same bytes on every engine.
    """
    engine.check(config)
    model, strategy = _open(config, device)
    folder = RunDirectory(path, durable=False, keep_events=config.record.events)
    totals = Totals()
    progress = watcher(title or str(config.method["name"]), config.rounds)

    def on_round(decided: Decided, metrics: Mapping[str, float]) -> None:
        totals.add(decided, metrics)
        progress.show(decided, metrics, totals)

    def start(grid: Grid) -> Result:
        rounds, evaluate = config.rounds, model.evaluate_fn()
        return strategy.start(grid, model.initial_arrays(), rounds, GATHER_SECONDS, evaluate_fn=evaluate)

    ends = EndsAfterRound()
    if interruption is not None:
        interruption.afterwards = f"a simulation is not resumed; {path} holds the rounds that were done"
    try:
        folder.write_config(to_options(config))
        observe(monitoring, config, folder)
        run, strategy.steering = new_run(), ends
        folder.observers.add(RunLog(run))
        strategy.of_run(run, folder, on_round)
        with (interruption or Interruption()).ends(ends.end, "the simulation ends after the open round"):
            result = engine.play(config, device, path / CLIENTS, start)
        if strategy.stopped:
            folder.end("stopped", "interrupted")
        folder.save_model(from_arrays(result.arrays))
    except BaseException as error:
        folder.failed(error)
        raise
    finally:
        progress.close()
        rmtree(path / CLIENTS, ignore_errors=True)  # a simulation is not resumed
        folder.close()
    return Outcome(config, totals, path)


def _open(config: RunConfig, device: str) -> tuple[ServerModel, MethodStrategy]:
    """Task, model and method; raises ConfigError where they do not fit."""
    model = ServerModel.of(config, device)
    return model, MethodStrategy(config, layout=model.layout, buffers=model.buffers)


def virtual_clients(config: RunConfig, device: str = "auto", folder: Path | None = None) -> VirtualClients:
    """Virtual clients for an in-process grid; with a folder, their memory does not grow with their number."""
    return VirtualClients(config.task, device, folder)


__all__ = ["dense_fedavg", "run_simulation", "simulate", "virtual_clients"]
