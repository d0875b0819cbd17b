"""Bad days of an operator: each is one clear line and exit code 2, and nothing is lost or left behind."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fleet"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))

from dated import Authority
from test_cli import Ended, Thinwire, thinwire  # noqa: F401  the fixture

from server.run_directory import RunDirectory
from thinwire.cli import logs

SMALL = ("--clients", "1", "--rounds", "1", "--set", "task.hidden=[4]", "--set", "server.gather_seconds=0.2")


def last(ended: Ended) -> str:
    """The line that says what is wrong; it ends in exit code 2."""
    assert ended.code == 2
    assert "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("what", ["--address", "server.control"])
def test_a_port_that_is_taken_is_named(what: str, thinwire: Thinwire) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        mine = ("--address", "127.0.0.1:0")
        flags = ("--address", address) if what == "--address" else (*mine, "--set", f"server.control={address}")
        line = last(thinwire("server", *SMALL, *flags))
    assert address in line
    assert "taken" in line or "in use" in line


@pytest.mark.parametrize(
    ("days", "phrase"), [((-9.0, -3.0), "expired on"), ((3.0, 9.0), "is valid from")], ids=["expired", "not yet valid"]
)
def test_a_certificate_out_of_its_time_is_named_on_each_side(
    days: tuple[float, float],
    phrase: str,
    thinwire: Thinwire,  # noqa: F811
    tmp_path: Path,
) -> None:
    ours = Authority(tmp_path / "ours", "ours")
    late = ours.sign("late", days)
    pair = ("--certificate", late.certificate, "--key", late.key)
    for line in (
        last(thinwire("server", *SMALL, "--address", "127.0.0.1:0", *pair)),
        last(thinwire("client", "--server", "127.0.0.1:1", "--state", "state", "--ca", ours.path, *pair)),
        last(thinwire("status", "--address", "127.0.0.1:1", "--ca", ours.path, *pair)),
    ):
        assert f"'{late.certificate}' {phrase}" in line
        assert "this machine's clock says" in line


def test_two_servers_on_one_run_directory_are_told_apart(thinwire: Thinwire, tmp_path: Path) -> None:  # noqa: F811
    with RunDirectory(tmp_path / "run"):
        line = last(thinwire("server", *SMALL, "--address", "127.0.0.1:0", "--out", "run"))
    assert "run directory run is in use by another server" in line


@pytest.mark.parametrize("command", ["status", "watch", "pause", "clients"])
def test_a_run_directory_that_is_not_there_is_named(command: str, thinwire: Thinwire) -> None:  # noqa: F811
    words = ("clients", "list", "runs/none") if command == "clients" else (command, "runs/none")
    assert "there is no run directory runs/none" in last(thinwire(*words))


def test_a_control_file_that_is_none_is_named(thinwire: Thinwire, tmp_path: Path) -> None:  # noqa: F811
    with RunDirectory(tmp_path / "run"):
        (tmp_path / "run" / "control.json").write_text("{")
        assert "run/control.json is no control file" in last(thinwire("pause", "run"))


def test_an_assignment_that_is_none_is_told(thinwire: Thinwire) -> None:  # noqa: F811
    assert "'rounds' is not an assignment; write KEY=VALUE" in last(
        thinwire("set", "rounds", "--address", "127.0.0.1:1")
    )


def test_the_operators_variables_are_no_keys_of_a_run(
    thinwire: Thinwire,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THINWIRE_OPERATOR_ADDRESS", "127.0.0.1:1")
    assert "no answer from the control service at 127.0.0.1:1" in last(thinwire("pause"))
    ended = thinwire("simulate", "--clients", "2", "--rounds", "1", "--set", "task.hidden=[4]", "--no-baseline")
    assert ended.code == 0, ended.err


def test_a_run_directory_that_cannot_be_written_is_named(thinwire: Thinwire, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "file").write_text("")
    line = last(thinwire("server", *SMALL, "--address", "127.0.0.1:0", "--out", f"file{os.sep}run"))
    assert "cannot write" in line or "file/run" in line


def test_a_server_that_ended_before_its_first_checkpoint_begins_anew_with_keep_on(
    thinwire: Thinwire,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Compose starts it again and again in the same folder, until the clients are there."""
    for _ in range(2):
        line = last(thinwire("server", *SMALL, "--address", "127.0.0.1:0", "--out", "run", "--keep-on"))
        assert "0 of 1 clients" in line
    assert (tmp_path / "run" / "run.toml").exists()


@pytest.mark.parametrize(
    ("words", "phrase"),
    [(("--rounds", "x"), "'x' is not a valid"), (("--nosuch",), "No such option"), (("--log-level", "no"), "allowed:")],
)
def test_a_mistake_on_the_command_line_is_a_line_of_json_where_the_log_is(
    words: tuple[str, ...],
    phrase: str,
    thinwire: Thinwire,  # noqa: F811
) -> None:
    try:
        ended = thinwire("server", "--log-json", *words)
    finally:
        logs.set_up(False, "info")
    (line,) = map(json.loads, ended.err.splitlines())
    assert (ended.code, line["level"]) == (2, "error")
    assert phrase in line["message"]
