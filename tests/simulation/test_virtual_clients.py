"""Many clients in few processes: where their states lie and who computes changes no bit."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.virtual import VirtualClients
from server.evaluation import ServerModel
from server.grids.answers import OfClients
from server.grids.in_process import InProcessGrid
from server.grids.worker_processes import WorkerProcesses
from server.run_directory import RunDirectory, read_rounds
from strategies.coordinator import Decided
from strategies.flower import MethodStrategy, from_arrays
from thinwire.cli.engines import InProcess
from thinwire.cli.simulation import CLIENTS, simulate
from thinwire.errors import ConfigError, RoundError
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import new_run

OPTIONS: dict[str, Any] = {
    "clients": 30,
    "rounds": 6,
    "seed": 5,
    "participation": {"fraction": 0.3},
    "local": {"steps": 2},
    "evaluation": {"where": "none"},
    "task": {"name": "digits", "hidden": [16], "partition": "iid"},
}
STATEFUL = {**OPTIONS, "method": "ef21", "uplink": {"name": "top-k", "fraction": 0.05}, "downlink": "natural"}
LARGE = {**STATEFUL, "rounds": 4, "task": {**OPTIONS["task"], "hidden": [256]}}  # states that are mapped
STATELESS = {**OPTIONS, "method": "fedavg", "uplink": "identity", "downlink": "identity"}


def outcome_of(run: Path) -> tuple[bytes, list[tuple[int, int]]]:
    """The model, and the bytes up and down of every round."""
    rows = read_rounds(run)
    return (run / "model.safetensors").read_bytes(), [(row["uplink_bytes"], row["downlink_bytes"]) for row in rows]


def play(options: Mapping[str, Any], path: Path, answers: Any, on_round: Any = None) -> list[dict[str, Any]]:
    """One run over the given answers; the rows of its rounds."""
    config = RunConfig.of(options)
    model = ServerModel.of(config, "cpu")
    folder = RunDirectory(path, durable=False)
    grid = InProcessGrid(answers, config.clients, run_id=1)
    try:
        strategy = MethodStrategy(config, layout=model.layout, buffers=model.buffers)
        strategy.of_run(new_run(), folder, on_round)
        result = strategy.start(grid, model.initial_arrays(), config.rounds, 300.0)
        folder.save_model(from_arrays(result.arrays))
    finally:
        grid.close()
        folder.close()
    return read_rounds(path)


@pytest.mark.parametrize(
    ("options", "two_clients_bytes"),
    [(STATEFUL, 30_000), (LARGE, 300_000), (STATELESS, 30_000)],
    ids=["ef21", "mapped", "fedavg"],
)
def test_states_that_find_no_room_in_memory_change_no_bit(
    options: dict[str, Any], two_clients_bytes: int, tmp_path: Path
) -> None:
    clients = VirtualClients(options["task"], "cpu", tmp_path / "states", state_bytes=1, near=2)
    play(options, tmp_path / "spilled", OfClients(clients.answer))
    assert clients.state_bytes < two_clients_bytes, "more than one client's state stayed in memory"
    simulate(RunConfig.of(options), tmp_path / "kept")
    assert outcome_of(tmp_path / "spilled") == outcome_of(tmp_path / "kept")


def test_clients_that_were_never_asked_take_no_room(tmp_path: Path) -> None:
    clients = VirtualClients(STATEFUL["task"], "cpu", tmp_path / "states", state_bytes=1)
    rows = play({**STATEFUL, "rounds": 1}, tmp_path / "run", OfClients(clients.answer))
    (run,) = (tmp_path / "states").iterdir()
    assert {path.name for path in run.iterdir()} <= {f"client-{index}" for index in rows[0]["asked"]}


def test_a_simulation_leaves_no_client_states_behind(tmp_path: Path) -> None:
    simulate(RunConfig.of({**STATEFUL, "rounds": 1}), tmp_path / "run")
    assert not (tmp_path / "run" / CLIENTS).exists()


def settings(tmp_path: Path) -> dict[str, Any]:
    return {"task": OPTIONS["task"], "device": "cpu", "folder": str(tmp_path / "states")}


def test_two_workers_give_the_model_and_the_bytes_of_one_process(tmp_path: Path) -> None:
    simulate(RunConfig.of(STATEFUL), tmp_path / "one")
    simulate(RunConfig.of(STATEFUL), tmp_path / "two", engine=InProcess(2))
    assert outcome_of(tmp_path / "two") == outcome_of(tmp_path / "one")


def test_a_worker_that_is_killed_is_replaced_and_changes_no_bit(tmp_path: Path) -> None:
    answers = WorkerProcesses("client.virtual_worker", settings(tmp_path), 2)
    killed = []

    def on_round(decided: Decided, metrics: Mapping[str, float]) -> None:
        if decided.round in (2, 4):
            killed.append(answers.processes()[decided.round // 2 - 1])
            os.kill(killed[-1], signal.SIGKILL)

    play(STATEFUL, tmp_path / "killed", answers, on_round)
    assert len(killed) == 2
    simulate(RunConfig.of(STATEFUL), tmp_path / "whole")
    assert outcome_of(tmp_path / "killed")[0] == outcome_of(tmp_path / "whole")[0]


def test_workers_that_cannot_live_end_the_run_in_one_line(tmp_path: Path) -> None:
    answers = WorkerProcesses("client.no_such_module", settings(tmp_path), 1)
    with pytest.raises(RoundError, match="3 worker processes ended while they answered for 'client-0'"):
        play(STATEFUL, tmp_path / "run", answers)


def test_no_workers_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers = 0 is below 1"):
        simulate(RunConfig.of(STATEFUL), tmp_path / "run", engine=InProcess(0))
