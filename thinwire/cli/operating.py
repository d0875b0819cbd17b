"""The operator's commands: what prepares a run, looks at one, and steers it."""

import typer

from thinwire.cli import doctor, starting


def add_to(app: typer.Typer) -> None:
    """Register them."""
    app.command()(starting.init)
    app.command()(doctor.doctor)
