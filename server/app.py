"""The Flower ServerApp: a run on whatever grid Flower gives, simulated or deployed."""

from collections.abc import Mapping
from logging import INFO
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from server.evaluation import ServerModel
from server.run_directory import RunDirectory, check_resumable, keeps_mirrors, new_run_folder
from strategies.coordinator import Decided
from strategies.flower import MethodStrategy, from_arrays
from thinwire.config import read_toml, set_keys, to_options, unflatten
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import new_run

from flwr.app import Context  # isort: skip
from flwr.common.logger import log  # isort: skip
from flwr.serverapp import Grid, ServerApp  # isort: skip
from flwr.serverapp.strategy import Result  # isort: skip

NAMED = ("method", "uplink", "downlink", "optimiser", "task")  # sections that may be given by their name alone
HOST_KEYS = ("out", "resume", "set")  # of the run config, not of the run


def run_options(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run from Flower's flat run config.

    ``resume`` takes the configuration of that run directory instead. ``set`` holds any other keys, as assignments
    with semicolons between them: ``"uplink.fraction=0.02; local.steps=10"``. Raises ConfigError.
    """
    resume = str(run_config.get("resume", ""))
    if resume:
        options = read_toml(check_resumable(Path(resume)) / "run.toml")
    else:
        keys = {key: value for key, value in run_config.items() if key not in HOST_KEYS}
        options = unflatten({f"{key}.name" if key in NAMED else key: value for key, value in keys.items()})
    assignments = str(run_config.get("set", "")).split(";")
    return set_keys(options, [assignment for assignment in assignments if assignment.strip()])


def serve(grid: Grid, run_config: Mapping[str, Any]) -> Result:
    """One run, new or resumed, with its run directory. Raises ConfigError and RoundError."""
    config = RunConfig.of(run_options(run_config))
    out, resume = (Path(text) if (text := str(run_config.get(key, ""))) else None for key in ("out", "resume"))
    path = resume or new_run_folder(out, str(config.method["name"]))
    model = ServerModel.of(config)
    strategy = MethodStrategy(config, layout=model.layout, buffers=model.buffers)
    mirrors = keeps_mirrors(config, strategy.method, model.layout.numel)
    folder = RunDirectory(path, mirrors=mirrors, keep=config.checkpoint.keep, keep_events=config.record.events)
    with folder:
        folder.write_config(to_options(config))
        result = strategy.of_run(new_run(), folder, _log_round).start(
            grid, model.initial_arrays(), config.rounds, evaluate_fn=model.evaluate_fn()
        )
        folder.save_model(from_arrays(result.arrays))
    log(INFO, "Thinwire: the run directory is %s", path.absolute())
    return result


def _log_round(decided: Decided, metrics: Mapping[str, float]) -> None:
    numbers = "".join(f", {name} {value:.4f}" for name, value in metrics.items())
    log(
        INFO,
        "Thinwire: round %d, %d of %d replied, up %d bytes, down %d bytes%s",
        decided.round,
        len(decided.replied),
        len(decided.asked),
        decided.uplink_bytes,
        decided.downlink_bytes,
        numbers,
    )


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What Flower calls, with the keys of ``[tool.flwr.app.config]``."""
    serve(grid, context.run_config)
