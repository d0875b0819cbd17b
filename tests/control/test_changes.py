"""A configuration changed in mid-run: clients lose nothing by it, and a killed server goes on with the same bits."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from control_kit import OPTIONS, PROBLEM, RUN, Bench

from client.app import respond
from client.desk import Desk
from client.store import MemoryClientStore
from server.grids.in_process import InProcessGrid
from server.run_directory import RunDirectory
from server.run_store import read_rounds
from strategies.changes import CHANGEABLE, changed, value_of
from strategies.flower import MethodStrategy, method_of, to_arrays
from strategies.helm import Helm
from strategies.loop import Problem
from strategies.problems import LinearModel
from strategies.steering import Unsteered
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig

CLIENTS = len(PROBLEM.oracles)
STEPS = {"local": {"work": "steps", "steps": 3, "rate": 0.02}, "optimiser": {"rate": 1.0}}


class Killed(Exception):  # noqa: N818
    """The server process is gone."""


class Script(Unsteered):
    """Steers by a script: what happens before which round."""

    def __init__(self, script: Mapping[int, Callable[[Helm], None]]) -> None:
        self._script = dict(script)

    def open(self, helm: Helm) -> None:
        self._helm = helm

    def between(self) -> None:
        act = self._script.pop(self._helm.version + 1, None)
        if act is not None:
            act(self._helm)


class LocalBench(Bench):
    """As a workshop does: the clients' local rate is that of the configuration."""

    def opened(self, configuration: str, clients: int) -> "LocalBench":
        local = json.loads(configuration)["local"]
        self.oracles = [
            LinearModel(o.features, o.targets, o.residual, o.scale, o.lam, steps=local["steps"], rate=local["rate"])
            for o in map(linear, self.problem.oracles)
        ]
        super().opened(configuration, clients)
        return self


def linear(oracle: object) -> LinearModel:
    assert isinstance(oracle, LinearModel)
    return oracle


class Fleet:
    """Clients that outlive their server, each in a process of its own as far as it can tell."""

    def __init__(self, problem: Problem = PROBLEM) -> None:
        self.bench = LocalBench(method_of(RunConfig.of({**OPTIONS, **STEPS})), problem, 0)
        self._stores = [MemoryClientStore() for _ in range(CLIENTS)]
        self.desks = [
            Desk(f"client-{i}", "", self.bench.opened, lambda run, i=i: self._stores[i]) for i in range(CLIENTS)
        ]

    def answer(self, message: Any, context: Any) -> Any:
        return respond(self.desks[int(context.node_config["partition-id"])], message)

    def grid(self) -> InProcessGrid:
        names = [desk.name for desk in self.desks]
        return InProcessGrid(self.answer, CLIENTS, int(RUN[:15], 16), identities=names)


def serve(fleet: Fleet, folder: Path, config: RunConfig, script: Mapping[int, Callable[[Helm], None]]) -> bytes:
    """One server process; the model it ends with, or nothing where it was killed."""
    strategy = MethodStrategy(config, layout=PROBLEM.layout)
    strategy.steering = Script(script)
    store = RunDirectory(folder, mirrors=True)
    try:
        result = strategy.of_run(RUN, store).start(fleet.grid(), to_arrays(PROBLEM.layout.unflatten(PROBLEM.x0)))
    except Killed:
        return b""
    finally:
        store.close()
    return b"".join(array.numpy().tobytes() for array in result.arrays.values())


def die(helm: Helm) -> None:
    raise Killed


def change(keys: Mapping[str, str], kept: list[RunConfig]) -> Callable[[Helm], None]:
    return lambda helm: helm.change(changed(helm.config, keys, helm.version), kept.append)


@pytest.mark.parametrize(
    "keys",
    [
        {"local.rate": "0.01"},
        {"optimiser.rate": "0.5"},
        {"participation.fraction": "0.7", "rounds": "16"},
        {"local.rate": "0.03", "optimiser.rate": "0.8", "round.minimum_replies": "2"},
    ],
    ids=lambda keys: "+".join(keys),
)
def test_a_server_killed_after_a_change_goes_on_with_the_same_bits(keys: dict[str, str], tmp_path: Path) -> None:
    config = RunConfig.of({**OPTIONS, **STEPS, "rounds": 14})
    kept: list[RunConfig] = []
    whole = serve(Fleet(), tmp_path / "whole", config, {6: change(keys, kept)})
    fleet = Fleet()
    assert serve(fleet, tmp_path / "killed", config, {6: change(keys, kept), 11: die}) == b""
    resumed = serve(fleet, tmp_path / "killed", kept[-1], {})
    assert resumed == whole
    assert whole != serve(Fleet(), tmp_path / "unchanged", config, {})
    rows = read_rounds(tmp_path / "killed")
    assert len(rows) == (16 if "rounds" in keys else 14)


def test_a_second_welcome_in_mid_run_costs_a_client_nothing(tmp_path: Path) -> None:
    fleet, kept = Fleet(), []
    config = RunConfig.of({**OPTIONS, **STEPS, "rounds": 12})
    serve(fleet, tmp_path, config, {8: change({"local.rate": "0.01"}, kept)})
    rates = [configuration["local"]["rate"] for configuration in fleet.bench.configurations]
    assert rates == [0.02] * CLIENTS + [0.01] * CLIENTS
    folder = RunDirectory(tmp_path, mirrors=True)
    try:
        saved = folder.load()[0]
        for index, desk in enumerate(fleet.desks):
            participant = desk._seated[RUN]
            mirror = folder.read_mirror(index, saved.clients[index].chain)
            assert torch.equal(mirror, participant._pending.private.g)
            assert participant.shelf.held.version == 11
        downs = [row["downlink_bytes"] for row in folder.rounds()]
        assert downs[7] < downs[6] + 3 * 1_000  # the welcomes, and no snapshot of what is there already
    finally:
        folder.close()


def test_changing_rounds_to_those_that_are_done_ends_the_run(tmp_path: Path) -> None:
    config = RunConfig.of({**OPTIONS, "rounds": 9})
    serve(Fleet(), tmp_path, config, {5: change({"rounds": "4"}, [])})
    assert len(read_rounds(tmp_path)) == 4


@pytest.mark.parametrize(
    ("options", "keys", "reason"),
    [
        (
            {"method": {"name": "dasha"}, "uplink": "rand-k"},
            {"participation.fraction": "0.5"},
            "dasha needs all clients",
        ),
        ({"method": {"name": "ef21-bc"}}, {"local.rate": "0.2"}, "part of what all nodes replay"),
        ({}, {"rounds": "2"}, "rounds = 2: round 3 is decided already"),
        ({}, {"rounds": "9" * 20}, "must be a number above 0, up to 1,000,000,000"),
        ({}, {"round.deadline_seconds": "nan"}, "round.deadline_seconds = nan must be a number"),
        ({}, {"round.deadline_seconds": "inf"}, "round.deadline_seconds = inf must be a number"),
        ({}, {"local.rate": "'fast'"}, "local.rate = 'fast' must be a number"),
        ({}, {"local.rate": "true"}, "local.rate = True must be a number"),
    ],
)
def test_what_a_method_cannot_go_on_with_is_refused_and_nothing_changes(
    options: dict[str, Any], keys: dict[str, str], reason: str, tmp_path: Path
) -> None:
    refused: list[str] = []

    def try_it(helm: Helm) -> None:
        before = helm.config
        with pytest.raises(ConfigError, match=reason) as caught:
            helm.change(changed(helm.config, keys, helm.version), lambda config: None)
        refused.append(str(caught.value))
        assert helm.config is before

    fleet, config = Fleet(), RunConfig.of({**OPTIONS, "optimiser": {}, **options, "rounds": 4})
    fleet.bench.method = method_of(config)
    serve(fleet, tmp_path, config, {4: try_it})
    assert refused


def test_every_key_that_may_be_changed_is_a_key_of_the_configuration() -> None:
    config = RunConfig.of(STEPS)
    for key in CHANGEABLE:
        assert value_of(config, key) is not None


def test_a_rate_that_a_run_calls_lr_is_changed_under_that_name() -> None:
    config = RunConfig.of({"optimiser": {"name": "adam", "lr": 0.1}})
    after = changed(config, {"optimiser.rate": "0.2"}, 0)
    assert after.optimiser == {"name": "adam", "lr": 0.2}
    assert value_of(after, "optimiser.rate") == 0.2
