"""``thinwire doctor``: a line for everything that a run needs, and exit code 2 where something is missing."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from test_cli import Thinwire, thinwire  # noqa: F401  the fixture

from thinwire.cli import machine
from thinwire.cli.commented import client_toml, run_toml
from thinwire.cli.doctor import examine
from thinwire.cli.findings import Finding
from thinwire.config import read_toml


def findings(options: dict[str, Any], flags: dict[str, str], out: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(options, flags, out, "file.toml" if options else "")}


def test_a_machine_that_can_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(run_toml())
    options = read_toml(tmp_path / "run.toml")
    options["server"]["address"] = "127.0.0.1:0"
    found = findings(options, {}, tmp_path / "runs")
    assert {name for name, finding in found.items() if finding.state == "fail"} == set()
    looked = {"python", "thinwire", "torch", "flwr", "grpcio", "protobuf", "threads", "gpu", "disk room", "fleet port"}
    assert looked <= found.keys()
    assert found["run.toml"].detail == "file.toml is right: ef21, 200 rounds"
    assert not (tmp_path / "runs").exists()


def test_what_fails_is_one_line_with_its_advice_and_exit_code_2(thinwire: Thinwire, tmp_path: Path) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        (tmp_path / "run.toml").write_text(f'[server]\naddress = "{address}"\n')
        told = thinwire("doctor", "-c", "run.toml")
        listed = thinwire("doctor", "-c", "run.toml", "--json")
    assert (told.code, listed.code) == (2, 2)
    (line,) = [line for line in told.out.splitlines() if line.startswith("fail")]
    assert line.startswith(f"fail fleet port: cannot listen on {address}: Address already in use; stop what listens")
    found = json.loads(listed.out)
    assert found["fail"] == 1
    assert [one["name"] for one in found["findings"] if one["state"] == "fail"] == ["fleet port"]


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"method": {"name": "ef12"}}, "did you mean 'ef21'"),
        ({"server": {"adress": "x"}}, "did you mean 'address'"),
        ({"task": {"name": "no_such_module:Task"}}, "cannot be imported"),
        ({"server": {"certificate": "absent.pem", "key": "absent.key"}}, "cannot read the server certificate"),
    ],
)
def test_a_file_that_is_wrong_is_told(options: dict[str, Any], phrase: str, tmp_path: Path) -> None:
    failed = [one for one in findings(options, {}, tmp_path).values() if one.state == "fail"]
    assert phrase in failed[0].detail


def test_a_client_file_is_told_from_a_run_file_and_its_server_is_looked_for(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        (tmp_path / "client.toml").write_text(client_toml({"server": address, "state": str(tmp_path / "states")}))
        found = findings(read_toml(tmp_path / "client.toml"), {}, tmp_path)
    assert found["client.toml"].state == "ok"
    assert f"nobody listens on {address}" in found["server"].detail
    assert "fleet port" not in found


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = {finding.name: finding for finding in machine.disk(tmp_path / "file" / "runs")}
    assert found["disk"].state == "fail"
    assert "cannot write in" in found["disk"].detail


def test_versions_are_held_against_what_is_needed_and_pinned() -> None:
    assert machine._version(Requirement("numpy<1"), None).state == "fail"
    assert machine._version(Requirement("no-such-package>=1"), None).detail == "not installed; needed: >=1"
    pinned = machine._version(Requirement("numpy>=1"), "1.0.0")
    assert (pinned.state, "constraints.txt pins 1.0.0" in pinned.detail) == ("warn", True)
    assert machine._version(Requirement("numpy>=1"), None).state == "ok"


def test_a_port_is_free_or_taken_or_not_ours() -> None:
    assert machine.port("127.0.0.1:0", "fleet").state == "ok"
    assert "Cannot assign" in machine.port("192.0.2.1:8500", "fleet").detail
