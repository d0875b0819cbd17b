"""Every command of the guide is one that there is, with options that there are."""

import re
import shlex
from pathlib import Path

import click
import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from thinwire.cli.commands import app
from thinwire.cli.described import command_line
from thinwire.cli.project import project

ROOT = Path(__file__).parents[2]
PAGES = {
    "operate.md": (ROOT / "docs" / "operate.md").read_text(encoding="utf-8"),
    "README.md": (ROOT / "README.md").read_text(encoding="utf-8"),
    "a project's README.md": project("moons")["README.md"],
}


def commands(text: str) -> list[list[str]]:
    """The words of each command of thinwire in a shell's block; a comment behind it is none of them."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("thinwire ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_can_be_given(page: str) -> None:
    found = commands(PAGES[page])
    assert len(found) >= 3
    for words in found:
        command = command_line(app)
        while isinstance(command, click.Group):
            assert words[0] in command.commands, (page, words)
            command = command.commands[words.pop(0)]
        command.make_context("thinwire", words)  # raises UsageError for what it does not take


def test_the_guide_gives_every_command_of_an_operators_day() -> None:
    given = {words[0] for words in commands(PAGES["operate.md"])}
    assert given >= {"init", "doctor", "simulate", "server", "client", "watch", "status", "pause", "resume", "clients"}
    assert given >= {"checkpoint", "set", "runs", "plot", "report", "certs"}
