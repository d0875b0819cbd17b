"""docs/cli.md is what the command line says of itself, and says of everything what it is for."""

import re
from pathlib import Path

import click

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from thinwire.cli.command_page import PARTS, page
from thinwire.cli.commands import app
from thinwire.cli.described import command_line

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_is_fresh() -> None:
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == page(), "run python -m thinwire.cli.command_page"


def test_every_command_is_on_the_page_in_its_part() -> None:
    group = command_line(app)
    assert isinstance(group, click.Group)
    text = page()
    for name in group.commands:
        assert f"\n### thinwire {name}\n" in text
    assert {name for names in PARTS.values() for name in names} | {"version"} == set(group.commands)


def test_every_option_and_argument_says_what_it_is_for() -> None:
    rows = re.findall(r"^\| (`.*?) \|.*?\| (.*?) \|$", page(), re.M)
    assert len(rows) > 150
    assert [names for names, meaning in rows if not meaning.strip()] == []
