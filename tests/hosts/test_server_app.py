"""The ServerApp: Flower's run config, a run resumed by it, and a project of one's own on it."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hosts_support import BASE, CLIENTS, flat, in_process, model_of, options_of, run_config

from server.app import app, run_options, serve
from server.grids.in_process import InProcessGrid
from thinwire.cli.simulation import virtual_clients
from thinwire.errors import ConfigError
from thinwire.flower import new_context
from thinwire.run_config import RunConfig

ROOT = Path(__file__).parents[2]


def own_keys() -> dict[str, Any]:
    """The keys of our own [tool.flwr.app.config], as Flower hands them over."""
    return flat(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"])


def test_the_keys_of_the_flower_app_are_the_defaults_of_a_run() -> None:
    assert RunConfig.of(run_options(own_keys())) == RunConfig()


def test_every_other_key_goes_into_set() -> None:
    keys = {**own_keys(), "rounds": 7, "uplink": "rand-k", "set": "uplink.fraction=0.02; local.steps = 9;"}
    config = RunConfig.of(run_options(keys))
    assert config.rounds == 7
    assert config.uplink == {"name": "rand-k", "fraction": 0.02}
    assert config.local["steps"] == 9


def test_a_project_may_list_keys_of_its_own_beside_a_name() -> None:
    config = RunConfig.of(run_options({"uplink": "top-k", "uplink.fraction": 0.3}))
    assert config.uplink["fraction"] == 0.3


@pytest.mark.parametrize("keys", [{"set": "uplnk.fraction=1"}, {"set": "fraction"}, {"resume": "nowhere"}])
def test_bad_keys_are_refused(keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        RunConfig.of(run_options({**own_keys(), **keys}))


def test_a_run_that_is_resumed_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    options = options_of("ef21 and top-k both ways, float64", tmp_path, checkpoint={"every": 4})
    grid = InProcessGrid(virtual_clients(RunConfig.of(options), "cpu"), CLIENTS, run_id=9)
    serve(grid, run_config({**options, "rounds": 6}, tmp_path / "run"))
    serve(grid, {"resume": str(tmp_path / "run"), "set": f"rounds={BASE['rounds']}"})
    assert model_of(tmp_path / "run") == in_process(options, tmp_path / "simulated")


def test_flower_finds_the_app_by_reading_the_file() -> None:
    """Flower's check before a run looks for an assignment to the attribute, without importing the module."""
    components = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    for component in components.values():
        module, _, name = component.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
        assert name in [target.id for target in targets if isinstance(target, ast.Name)]


def test_the_app_runs_with_flowers_context(tmp_path: Path) -> None:
    keys = {**own_keys(), **run_config(options_of("fedavg, dense", tmp_path), tmp_path / "run")}
    options = run_options(keys)
    grid = InProcessGrid(virtual_clients(RunConfig.of(options), "cpu"), CLIENTS, run_id=9)
    app(grid, new_context(9, 0, {}, keys))
    assert model_of(tmp_path / "run") == in_process(options, tmp_path / "simulated")


def test_a_project_of_ones_own_trains_its_own_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    from examples import flower_project

    grid = InProcessGrid(flower_project.client_app, 4, run_id=9)
    flower_project.server_app(grid, new_context(9, 0, {}, {}))
    keys = {"method": "ef21", "uplink": "top-k", "downlink": "identity", "clients": 4, "rounds": 20}
    keys |= {"task": "examples.own_task:Line"}
    flower_project.configured_server_app(grid, new_context(9, 0, {}, keys))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trained:")]
    for line in lines:
        found = ast.literal_eval(line.removeprefix("trained: "))
        assert 1.5 < found["weight"][0][0] < 4.5  # of 3; it starts within 1 of 0
    assert len(lines) == 2
