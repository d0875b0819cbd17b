"""``thinwire simulate --engine flower``: the same run on Flower's own engine, without a word of Flower's or Ray's."""

from pathlib import Path
from typing import Any

import pytest

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from server.run_directory import read_rounds
from thinwire.cli.engines import OnFlower
from thinwire.cli.simulation import CLIENTS, run_simulation, simulate
from thinwire.errors import RoundError
from thinwire.run_config import RunConfig

OPTIONS: dict[str, Any] = {
    "clients": 6,
    "rounds": 3,
    "seed": 5,
    "participation": {"fraction": 0.5},
    "local": {"steps": 2},
    "evaluation": {"where": "none"},
    "task": {"name": "digits", "hidden": [16], "partition": "iid"},
    "method": "ef21",
    "uplink": {"name": "top-k", "fraction": 0.05},
    "downlink": {"name": "natural"},
}


def test_flowers_engine_gives_the_same_model_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_simulation(OPTIONS, tmp_path / "ray", baseline=False, as_json=True, engine=OnFlower())
    said = capfd.readouterr()
    assert said.out.startswith("{")
    assert said.out.count("\n") == 1
    lines = said.err.splitlines()
    assert [line for line in lines if not line.startswith("ef21: round ")] == []
    simulate(RunConfig.of(OPTIONS), tmp_path / "plain")
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ray", "plain")]
    assert models[0] == models[1]
    uplinks = [[row["uplink_bytes"] for row in read_rounds(tmp_path / name)] for name in ("ray", "plain")]
    assert uplinks[0] == uplinks[1]
    assert not (tmp_path / "ray" / CLIENTS).exists()


def test_an_error_of_the_run_comes_through_flowers_engine_as_it_is(tmp_path: Path) -> None:
    options = {**OPTIONS, "local": {"steps": 2, "rate": 1e30}, "round": {"retries": 0}}
    with pytest.raises(RoundError, match="round 1"):
        simulate(RunConfig.of(options), tmp_path / "run", engine=OnFlower())
