"""Identities out of a shared folder: one process each, the old one after a restart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.identities import Claim, claim
from thinwire.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("client-1", "client-2", "client-10"):
        for suffix in (".pem", ".key"):
            (tmp_path / f"{name}{suffix}").write_text(name)
    (tmp_path / "ca.pem").write_text("no key beside it")
    return tmp_path


def release(taken: Claim) -> None:
    os.close(taken.descriptor)


def test_each_claimant_gets_a_name_of_its_own_and_the_last_one_none(folder, tmp_path):
    taken = [claim(folder, tmp_path / "state", f"host{i}") for i in range(3)]
    assert [one.name for one in taken] == ["client-1", "client-2", "client-10"]
    assert taken[1].key == folder / "client-2.key"
    with pytest.raises(ConfigError, match="all 3 identities"):
        claim(folder, tmp_path / "state", "host3")
    for one in taken:
        release(one)


def test_a_host_that_comes_back_has_its_old_name_and_a_new_one_the_name_of_the_gone(folder, tmp_path):
    taken = {host: claim(folder, tmp_path / "state", host) for host in ("a", "b", "c")}
    for minute, one in enumerate(taken.values()):
        os.utime(one.descriptor, (60 * minute, 60 * minute))
        release(one)
    assert claim(folder, tmp_path / "state", "b").name == taken["b"].name
    assert claim(folder, tmp_path / "state", "d").name == taken["c"].name


def test_hosts_that_are_made_anew_take_the_names_that_were_left_last(folder, tmp_path):
    """They are what the run knows; who is new beside them takes a name that nobody had."""
    for host in ("a", "b"):
        release(claim(folder, tmp_path / "state", host))  # the same name: the first was left when the second came
    old = [claim(folder, tmp_path / "state", host) for host in ("c", "d")]
    assert [one.name for one in old] == ["client-1", "client-2"]
    for one in old:
        release(one)
    anew = [claim(folder, tmp_path / "state", host) for host in ("e", "f", "g")]
    assert {one.name for one in anew[:2]} == {one.name for one in old}
    assert anew[2].name == "client-10"


def test_a_name_that_was_refused_is_tried_last(folder, tmp_path):
    for name in ("client-1", "client-2", "client-10"):
        taken = claim(folder, tmp_path / "state", "a")
        assert taken.name == name
        taken.refused()
        release(taken)
    assert claim(folder, tmp_path / "state", "a").name == "client-1"  # all of them were: around again


def test_a_killed_process_gives_its_name_back(folder, tmp_path):
    script = "import sys, os; from pathlib import Path; from client.identities import claim\n"
    script += "print(claim(Path(sys.argv[1]), Path(sys.argv[2]), 'x').name, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "state")]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout.readline().strip() == "client-1"
        assert claim(folder, tmp_path / "state", "x").name != "client-1"
        holder.kill()
    assert claim(folder, tmp_path / "state", "x").name == "client-1"


def test_an_empty_folder_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no NAME\.pem"):
        claim(tmp_path, tmp_path / "state")
