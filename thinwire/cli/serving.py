"""``thinwire server``: a run served to clients over gRPC."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from server.evaluation import ServerModel
from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from server.run_directory import CHECKPOINTS, RunDirectory, keeps_mirrors, new_run_folder
from strategies.coordinator import Decided
from strategies.flower import MethodStrategy, from_arrays
from strategies.steering import Stopped
from thinwire.cli import logs
from thinwire.cli.controlling import control_options, controlled
from thinwire.cli.interruption import Interruption, interruptible
from thinwire.cli.monitoring import Monitoring, monitored
from thinwire.cli.outcome import Outcome
from thinwire.cli.pictures import describe, draw_runs, legend
from thinwire.cli.report import Totals, comparison, watcher
from thinwire.cli.run_log import RunLog
from thinwire.cli.words import shown
from thinwire.config import build, to_options
from thinwire.run_config import RunConfig
from thinwire.wire.endpoint import read
from thinwire.wire.exchange import new_run


@dataclass(frozen=True)
class ServerConfig(FleetOptions, Monitoring):
    """The section ``server`` of run.toml: how to listen and whom to let in, and what a run does with it."""

    gather_seconds: float = 3600.0  # wait for the clients before the first round
    control: str = "127.0.0.1:0"  # host:port where the operator is heard; port 0 takes a free one; "off": nowhere


@interruptible
def serve(
    options: Mapping[str, Any], out: Path | None, *, resume: Path | None, as_json: bool, interruption: Interruption
) -> None:
    """Open the run directory, listen, run the rounds, save the model, send the clients home."""
    plain = dict(options)
    settings = build(ServerConfig, plain.pop("server", {}), "server")
    config = RunConfig.of(plain)
    fleet = _fleet(settings)
    settings.check()
    control_options(settings.control, settings)  # what cannot be listened on is told before any folder is made
    model = ServerModel.of(config)
    path = resume or new_run_folder(out, str(config.method["name"]))
    strategy = MethodStrategy(config, layout=model.layout, buffers=model.buffers)
    mirrors = keeps_mirrors(config, strategy.method, model.layout.numel)
    folder = RunDirectory(path, mirrors=mirrors, keep=config.checkpoint.keep, keep_events=config.record.events)
    try:
        folder.write_config(_kept(config, settings))
        outcome = _run(config, fleet, settings, model, folder, strategy, interruption)
    except Stopped:
        folder.end("stopped", "before the first round")
        sys.stderr.write("stopped before the first round: there is nothing to resume, start it anew\n")
        return
    except BaseException as error:
        if (path / CHECKPOINTS).exists():
            interruption.afterwards = f"nothing is lost: thinwire server --resume {path} goes on"
        folder.failed(error)
        raise
    finally:
        folder.close()
    pictures = draw_runs(path, describe(config), {legend(config): path})
    if as_json:
        print(json.dumps(outcome.as_json()))
    else:
        Console().print(comparison({config.method["name"]: (outcome.totals, str(path))}))
        Console().print(f"run directory: {path}", highlight=False, soft_wrap=True, markup=False)
        for picture in pictures[:1]:
            Console().print(f"picture: {picture}", highlight=False, soft_wrap=True, markup=False)


def _run(
    config: RunConfig,
    fleet: FleetOptions,
    settings: ServerConfig,
    model: ServerModel,
    folder: RunDirectory,
    strategy: MethodStrategy,
    interruption: Interruption,
) -> Outcome:
    totals = Totals()
    loaded = folder.load()
    run = loaded[0].run if loaded else new_run()
    progress = watcher(str(config.method["name"]), config.rounds, loaded[0].round if loaded else 0)

    def on_round(decided: Decided, metrics: Mapping[str, float]) -> None:
        totals.add(decided, metrics)
        progress.show(decided, metrics, totals)

    def on_event(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "resumed":  # the record has all rounds that count now, and no other
            for row in folder.rounds():
                totals.add_row(row)
        _say(kind, fields)

    def keep(changed: RunConfig) -> None:
        folder.change_config(_kept(changed, settings))

    folder.observers.add(RunLog(run))
    fleet = replace(fleet, message_bytes=min(fleet.message_bytes, model.most_message_bytes()))
    grid = FleetGrid(fleet, int(run[:15], 16), events=lambda *event: _event(folder, *event))
    try:
        if loaded and loaded[0].round >= config.rounds:
            beside = "another run takes another folder, this one goes on with more --rounds"
            sys.stderr.write(f"the run in {folder.path} is over, {config.rounds} rounds: {beside}\n")
        awaited = "its clients to call again" if loaded else f"{config.clients} clients"
        sys.stderr.write(f"listening on {grid.address}, waiting for {awaited}\n")
        sys.stderr.flush()
        with (
            controlled(run, config, folder, control_options(settings.control, settings), keep) as control,
            interruption.ends(control.stop, "the run ends after the open round, with a checkpoint"),
            monitored(settings, config, folder, lambda: {node.name for node in grid.get_nodes()}) as store,
        ):
            control.progress.connected = lambda: {node.name for node in grid.get_nodes()}
            strategy.steering = control
            result = strategy.of_run(run, store, on_round, on_event).start(
                grid, model.initial_arrays(), None, settings.gather_seconds, evaluate_fn=model.evaluate_fn()
            )
            folder.save_model(from_arrays(result.arrays))
        if strategy.stopped:
            folder.end("stopped", f"by {control.stopping_by}")
            # the clients are not sent home: they call again for as long as their patience lasts
            sys.stderr.write(f"stopped by {control.stopping_by}; go on with thinwire server --resume {folder.path}\n")
        else:
            grid.finish()
    finally:
        progress.close()
        grid.close()
    return Outcome(config, totals, folder.path)


def _kept(config: RunConfig, settings: ServerConfig) -> dict[str, Any]:
    """run.toml; the token is a secret."""
    return {**to_options(config), "server": to_options(replace(settings, token=""))}


def _fleet(settings: ServerConfig) -> FleetOptions:
    """How to listen. Raises ConfigError, before any folder is made, for what cannot be listened with."""
    for path, what in ((settings.certificate, "certificate"), (settings.key, "key"), (settings.client_ca, "client CA")):
        read(path, what)
    return settings


def _event(folder: RunDirectory, kind: str, identity: str, detail: str) -> None:
    """Of the fleet's own thread: connections and refusals."""
    folder.record(f"fleet-{kind}", {"client": identity, "detail": detail})
    if kind in ("refused", "rejected") and not logs.as_json():
        sys.stderr.write(shown(f"client {identity or '(unknown)'} {kind}: {detail}") + "\n")


def _say(kind: str, fields: Mapping[str, Any]) -> None:
    """Events that an operator wants to see at once."""
    if kind in ("refused", "resumed", "hostile") and not logs.as_json():
        sys.stderr.write(shown(f"{kind}: " + ", ".join(f"{name} {value}" for name, value in fields.items())) + "\n")
        sys.stderr.flush()
