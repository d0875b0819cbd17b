"""The same run gives the same bits on every host: in one process, over gRPC, on Flower's Ray engine."""

from pathlib import Path

import pytest
from hosts_support import (
    CASES,
    PICTURES,
    events_of,
    images,
    in_process,
    in_step,
    on_fleet,
    on_ray,
    options_of,
    picture_options,
)

from client.app import app as client_app
from client.app import make_app


@pytest.mark.parametrize("case", CASES)
def test_a_fleet_over_grpc_ends_with_the_bits_of_one_process(case: str, tmp_path: Path) -> None:
    options = options_of(case, tmp_path)
    expected = in_process(options, tmp_path / "simulated")
    assert on_fleet(options, tmp_path / "fleet", tmp_path / "states") == expected
    in_step(tmp_path / "fleet", tmp_path / "states")


def test_batchnorm_ends_with_the_same_bits_over_grpc(tmp_path: Path) -> None:
    here, there = images(tmp_path / "server"), images(tmp_path / "client")
    expected = in_process(picture_options(here), tmp_path / "simulated")
    model = on_fleet(picture_options(here), tmp_path / "fleet", tmp_path / "states", {"path": str(there)})
    assert model == expected
    in_step(tmp_path / "fleet", tmp_path / "states")


def test_flowers_ray_engine_ends_with_the_bits_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    runs = {tmp_path / f"ray {number}": options_of(case, tmp_path) for number, case in enumerate(CASES)}
    models = on_ray(client_app, runs)
    for (out, options), model in zip(runs.items(), models, strict=True):
        assert model == in_process(options, out.with_name(f"{out.name} simulated"))
        in_step(out, tmp_path / "flower" / "thinwire-clients")
        assert not events_of(out, "client-lacks"), "a client did not find on its disk what it had"


def test_batchnorm_ends_with_the_same_bits_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    here, there = images(tmp_path / "server"), images(tmp_path / "client")
    task = {**PICTURES, "path": str(there)}
    (model,) = on_ray(make_app(task), {tmp_path / "ray": picture_options(here)})
    assert model == in_process(picture_options(here), tmp_path / "simulated")
    in_step(tmp_path / "ray", tmp_path / "flower" / "thinwire-clients")
