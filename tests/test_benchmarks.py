"""The experiments and measurements run, in their smallest form, and print what they promise."""

from pathlib import Path

import numpy as np
import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from benchmarks import defaults, digits, idx, round_time, server_memory, simulated_clients
from benchmarks.experiments import DENSE, compared
from thinwire.cli.simulation import dense_fedavg
from thinwire.run_config import RunConfig


def test_the_yardstick_of_the_experiments_is_that_of_the_command() -> None:
    assert compared(digits.base(5, 0.5))[DENSE] == dense_fedavg(digits.base(5, 0.5))


def test_every_method_of_the_digits_experiment_runs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = digits.main(["--seeds", "1", "--rounds", "2"])
    assert [row.participation for row in rows] == [1.0] * 6 + [0.5] * 6
    dense, ours, *_ = rows
    assert 0.99 < dense.times_fewer_up <= 1.0
    assert ours.times_fewer_up > 50
    assert capsys.readouterr().out.count("target") == 4


def test_images_are_skipped_with_a_clear_line_where_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert idx.main(["--path", str(tmp_path)]) == []
    assert "holds no IDX files" in capsys.readouterr().err


def test_the_defaults_are_among_those_that_they_were_chosen_from() -> None:
    assert RunConfig().downlink in defaults.DOWNLINKS
    assert any(local["steps"] == RunConfig().local["steps"] for local in defaults.LOCAL)
    assert all(config.evaluation.where == "clients" for config in defaults.cases(3).values())


@pytest.mark.slow
def test_the_digits_experiment_meets_its_target() -> None:
    rows = [row for row in digits.main(["--seeds", "3"]) if row.participation == 1]
    assert digits.verdict(rows).endswith("met")


@pytest.mark.slow
def test_images_train(tmp_path: Path) -> None:
    labels = np.arange(80, dtype=np.uint8) % 10
    images = np.repeat(labels, 784).reshape(80, 28, 28) * 20
    for name, array, head in (
        ("train-images-idx3-ubyte", images, (0, 8, 3)),
        ("train-labels-idx1-ubyte", labels, (0, 8, 1)),
    ):
        sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
        (tmp_path / name).write_bytes(b"\0" + bytes(head) + sizes + array.astype(np.uint8).tobytes())
    assert len(idx.main(["--path", str(tmp_path), "--seeds", "1", "--rounds", "2"])) == 3


@pytest.mark.slow
def test_a_round_of_real_processes_is_timed() -> None:
    rows = round_time.main(["--rounds", "3", "--width", "64", "--json"])
    assert all(0 < row["best_seconds"] <= row["median_seconds"] for row in rows)


@pytest.mark.slow
def test_a_servers_memory_is_measured() -> None:
    rows = server_memory.main(["--cohorts", "2", "--width", "64", "--rounds", "2", "--json"])
    assert all(row["peak_bytes"] > row["state_bytes"] > 0 for row in rows)


@pytest.mark.slow
def test_the_memory_of_a_simulation_does_not_grow_with_its_clients() -> None:
    few, many = simulated_clients.main(["--quick", "--json", "--cases", "EF21, top-k up"])
    assert (few["clients"], many["clients"]) == (100, 1000)
    assert few["rounds_per_second"] > 0
    assert many["peak_bytes"] < few["peak_bytes"] + 100e6, "900 clients more took 100 MB"
