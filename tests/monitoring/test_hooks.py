"""Observers of one's own: named by the operator, told in their own thread, and no danger to the run."""

import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
from monitoring_support import a_row

from server.hooks import InBackground, start_hook
from thinwire.cli.monitoring import Monitoring
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "hooks"
SIMULATE = ["simulate", "--rounds", "2", "--clients", "2", "--no-baseline", "--set", "task.hidden=[8]", "--out", "run"]


class Listener:
    def __init__(self, run_dir=None, options=None, fails=False):
        self.heard, self.closed, self.fails, self.threads = [], threading.Event(), fails, set()
        self.given = run_dir, options

    def record(self, kind, fields):
        self.threads.add(threading.get_ident())
        self.heard.append((kind, fields["round"]))
        if self.fails:
            raise RuntimeError("out of ink")

    def close(self):
        self.closed.set()


def command_line(folder: Path, *arguments: str, **environment: str) -> str:
    """The output of thinwire in a process of its own, in that folder."""
    command = [sys.executable, "-c", "from thinwire.cli import main; main()", *arguments]
    path = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_a_hook_hears_all_in_order_in_a_thread_of_its_own_and_is_closed_last(tmp_path: Path) -> None:
    made: list[Listener] = []

    def hook(run_dir, options):
        made.append(Listener(run_dir, options))
        return made[0]

    observer = start_hook("mine", hook, tmp_path, {"rounds": 3})
    for number in range(200):
        observer.record("round", a_row(number))
    observer.close()
    assert made[0].given == (tmp_path, {"rounds": 3})
    assert made[0].heard == [("round", number) for number in range(200)]
    assert made[0].closed.is_set()
    assert threading.get_ident() not in made[0].threads


def test_a_hook_that_fails_is_told_nothing_more_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    inner = Listener(fails=True)
    observer = InBackground("broken", inner)
    with caplog.at_level(logging.ERROR):
        observer.record("round", a_row(1))
        observer.record("round", a_row(2))
        observer.close()
    assert inner.heard == [("round", 1)]
    assert inner.closed.is_set()
    assert "hook broken failed and is told nothing more" in caplog.text


def test_a_hook_that_stands_still_holds_up_neither_a_round_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.hooks.MOST_WAITING", 3)
    hold, holds = threading.Event(), threading.Event()

    class Still(Listener):
        def record(self, kind, fields):
            holds.set()
            hold.wait()

    observer = InBackground("still", Still(), close_seconds=0.05)
    observer.record("round", a_row(0))
    assert holds.wait(60)
    with caplog.at_level(logging.WARNING):
        for number in range(1, 10):
            observer.record("round", a_row(number))
        observer.close()
    hold.set()
    assert caplog.text.count("hook still is 3 records behind") == 1
    assert "hook still stands still and is left behind" in caplog.text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlflow_hook", "is not of the form package.module:Class"),
        ("no_such_module:Hook", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("server.hooks:NoSuchHook", "AttributeError"),
        ("server.hooks:MOST_WAITING", "is no class and no function"),
    ],
)
def test_a_hook_that_is_none_is_told_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        Monitoring(hooks=(name,)).check()
    assert "\n" not in str(error.value)


def test_a_hook_that_does_not_start_stops_the_server_before_the_run(tmp_path: Path) -> None:
    def hook(run_dir, options):
        raise OSError("no such server")

    with pytest.raises(ConfigError, match="hook 'mine' failed to start: OSError: no such server"):
        start_hook("mine", hook, tmp_path, {})


def test_no_hook_comes_with_the_configuration_that_a_server_sends_or_flower_passes_on() -> None:
    assert "hooks" not in RunConfig.__dataclass_fields__
    with pytest.raises(ConfigError, match="unknown key 'hooks'"):
        RunConfig.of({"hooks": ["os:system"]})


def test_a_hook_of_the_current_folder_watches_a_simulation(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(
        "class Hook:\n"
        "    def __init__(self, run_dir, options):\n"
        "        self.file = open(run_dir / 'heard.txt', 'w')\n"
        "    def record(self, kind, fields):\n"
        "        self.file.write(f'{kind} ')\n"
        "    def close(self):\n"
        "        self.file.close()\n"
    )
    command_line(tmp_path, *SIMULATE, "--hook", "beside:Hook")
    heard = (tmp_path / "run" / "heard.txt").read_text().split()
    assert heard.count("round") == 2
    assert "roster" in heard


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the extra hooks: mlflow-skinny")
def test_a_run_is_in_mlflow(tmp_path: Path) -> None:
    command_line(tmp_path, *SIMULATE, "--hook", "mlflow_hook:MLflowHook", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    store = sqlite3.connect(tmp_path / "mlflow.db")
    name = (tmp_path / "run" / "mlflow.txt").read_text()
    assert store.execute("select status, name from runs where run_uuid = ?", [name]).fetchall() == [("FINISHED", "run")]
    ((uplink,),) = store.execute("select value from params where run_uuid = ? and key = 'uplink.name'", [name])
    assert uplink == "top-k"
    curves = store.execute("select key, group_concat(step) from metrics where run_uuid = ? group by key", [name])
    steps = dict(curves.fetchall())
    store.close()
    assert steps["compression_error/uplink"] == steps["bytes/downlink"] == steps["evaluation/accuracy"] == "1,2"


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the extra hooks: wandb")
def test_a_run_is_in_weights_and_biases(tmp_path: Path) -> None:
    hook = ["--hook", "wandb_hook:WandbHook"]
    command_line(tmp_path, *SIMULATE, *hook, WANDB_MODE="offline", WANDB_SILENT="true")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert (tmp_path / "run" / "wandb.txt").read_text() in file.name
    content = file.read_bytes()
    for words in (b"compression_error/uplink", b"evaluation/accuracy", b"bytes/downlink", b"top-k"):
        assert words in content, words
