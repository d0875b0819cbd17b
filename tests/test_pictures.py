"""The pictures of a run show what its run directory holds, and nothing else."""

from pathlib import Path

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from server.run_directory import RunDirectory
from thinwire.cli.pictures import PICTURES, Curve, describe, draw, draw_runs
from thinwire.run_config import RunConfig

pytest.importorskip("matplotlib")


def rows(rounds: int, uplink_bytes: int = 1_000, every: int = 1, accuracy: bool = True) -> list[dict[str, float]]:
    found = []
    for number in range(1, rounds + 1):
        row: dict[str, float] = {"round": number, "uplink_bytes": uplink_bytes, "downlink_bytes": 3 * uplink_bytes}
        if number % every == 0:
            row["loss"] = 2.3 / number
            row |= {"accuracy": 1 - 1 / number} if accuracy else {}
        found.append(row)
    return found


def run_directory(path: Path, rows: list[dict[str, float]]) -> Path:
    with RunDirectory(path, durable=False) as folder:
        for row in rows:
            folder.record("round", row)
    return path


def test_a_curve_counts_the_bytes_of_rounds_that_were_not_evaluated_too() -> None:
    curve = Curve.of("run", rows(6, uplink_bytes=10, every=3))
    assert curve.rounds == [3, 6]
    assert curve.uplink_bytes == [30, 60]
    assert curve.total_bytes == [120, 240]
    assert curve.metrics["accuracy"] == [1 - 1 / 3, 1 - 1 / 6]


def test_the_pictures_of_a_run_and_its_yardstick_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    runs = {
        "ef21": run_directory(tmp_path / "ef21", rows(8)),
        "dense FedAvg": run_directory(tmp_path / "fedavg", rows(8, uplink_bytes=170_000)),
    }
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        assert draw_runs(folder, describe(RunConfig()), runs) == [folder / name for name in PICTURES]
    for name in PICTURES:
        assert first.joinpath(name).read_bytes() == second.joinpath(name).read_bytes()


def test_a_run_with_a_loss_alone_has_a_picture_of_its_loss(tmp_path: Path) -> None:
    assert len(draw([tmp_path / name for name in PICTURES], "loss", [Curve.of("run", rows(3, accuracy=False))])) == 2


def test_a_run_without_evaluations_has_no_picture(tmp_path: Path) -> None:
    assert draw_runs(tmp_path, "none", {"run": run_directory(tmp_path / "run", rows(4, every=5))}) == []
    assert not any(tmp_path.joinpath(name).exists() for name in PICTURES)
