"""TensorBoard's own reader finds in the event files what the run recorded."""

import sys
from pathlib import Path

import pytest
from monitoring_support import a_row

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from server.event_files import FOLDER, EventFiles, check_tensorboard, scalars
from server.run_directory import RunDirectory
from thinwire.cli.monitoring import Monitoring
from thinwire.cli.simulation import simulate
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig


def read(run_dir: Path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run_dir / FOLDER), size_guidance={"scalars": 0})
    found.Reload()
    return found


def curve(found, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_a_run_is_in_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    task = {"name": "digits", "hidden": [8]}
    config = RunConfig.of({"rounds": 3, "clients": 2, "task": task, "evaluation": {"every": 2}})
    run_dir = simulate(config, tmp_path / "run", monitoring=Monitoring(tensorboard=True)).run_dir
    folder = RunDirectory(run_dir, durable=False)
    rows = folder.rounds()
    folder.close()
    found = read(run_dir)
    assert curve(found, "bytes/uplink") == [(row["round"], row["uplink_bytes"]) for row in rows]
    losses = [(row["round"], pytest.approx(row["loss"], rel=1e-6)) for row in rows if "loss" in row]  # kept as float32
    assert curve(found, "evaluation/loss") == losses
    assert [step for step, _ in curve(found, "evaluation/loss")] == [2, 3]
    assert [step for step, _ in curve(found, "compression_error/uplink")] == [1, 2, 3]
    assert len(curve(found, "train/train_loss")) == 3
    (text,) = found.Tensors("run.toml/text_summary")
    assert b'name = "ef21"' in text.tensor_proto.string_val[0]


def test_what_a_resumed_run_does_again_is_not_there_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    first = EventFiles(tmp_path, {})
    for number in (1, 2, 3):
        first.record("round", a_row(number, uplink_bytes=100))
    first.close()
    second = EventFiles(tmp_path, {}, first_round=3)
    second.record("resumed", {"round": 2})
    second.record("round", a_row(3, uplink_bytes=300))
    second.close()
    assert curve(read(tmp_path), "bytes/uplink") == [(1, 100.0), (2, 100.0), (3, 300.0)]


def test_the_scalars_of_a_row_are_its_numbers_under_their_names() -> None:
    found = scalars(a_row(1))
    assert found["bytes/ratio"] == 20
    assert found["compression_error/uplink"] == 0.125
    assert found["compression_error/downlink"] == 0.0625
    assert found["evaluation/client_accuracy"] == 0.5
    assert found["round/replied"] == 2
    assert "bytes/ratio" not in scalars(a_row(1, uplink_bytes=0, downlink_bytes=0))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'thinwire\[tensorboard\]'"):
        check_tensorboard()
    with pytest.raises(ConfigError, match=r"thinwire\[tensorboard\]"):
        Monitoring(tensorboard=True).check()
