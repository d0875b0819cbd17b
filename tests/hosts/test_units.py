"""The examples for systemd: what they run exists with these flags, and systemd has nothing to say against them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

import thinwire.flower  # noqa: F401  first: it imports flwr quietly

# isort: split
from thinwire.cli.commands import app

UNITS = sorted((Path(__file__).parents[2] / "docs" / "systemd").glob("*.service"))
PROGRAM = "/opt/thinwire/bin/thinwire"


def commands_of(unit: Path) -> list[list[str]]:
    lines = unit.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("ExecStart=")) for line in lines if line.startswith("ExecStart=")]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_there_is_with_flags_that_it_has(unit: Path) -> None:
    ((program, name, *flags),) = commands_of(unit)
    assert program == PROGRAM
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    context = group.commands[name].make_context(name, [*flags])
    given = {flag.removeprefix("--").replace("-", "_") for flag in flags if flag.startswith("--")}
    assert given
    assert all(context.params[flag] for flag in given)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_a_unit_and_finds_it_closed(unit: Path, tmp_path: Path) -> None:
    """With this interpreter in the place of the program, which need not be installed here."""
    mine = tmp_path / unit.name
    mine.write_text(unit.read_text(encoding="utf-8").replace(PROGRAM, sys.executable), encoding="utf-8")
    verified = subprocess.run(["systemd-analyze", "verify", str(mine)], capture_output=True, text=True, check=False)
    assert [line for line in verified.stderr.splitlines() if unit.name.split(".")[0].rstrip("@") in line] == []
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(mine)],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
    assert exposure is not None, rated.stderr
    assert float(exposure[1]) < 2.5  # of 10
