"""The operator's commands: what prepares a run, looks at one, and steers it."""

import typer

from thinwire.cli import commanding, doctor, standing, starting, watching


def add_to(app: typer.Typer) -> None:
    """Register them."""
    app.command()(starting.init)
    app.command()(doctor.doctor)
    app.command()(standing.status)
    app.command()(watching.watch)
    for command in (commanding.pause, commanding.resume, commanding.stop, commanding.checkpoint):
        app.command()(command)
    app.command("set")(commanding.set_)
    app.add_typer(commanding.clients_app, name="clients")
