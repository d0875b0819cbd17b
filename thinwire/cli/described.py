"""The command line as click has it, with the help of its arguments.

click 8.2 and later have a help of arguments of their own, which empties that of typer (0.20): it is put back here.
"""

import inspect
from collections.abc import Callable, Iterator

import click
import typer
from typer.models import ArgumentInfo
from typer.utils import get_params_from_function


def command_line(app: typer.Typer) -> click.Command:
    """All commands; ``--help`` and the page of documentation say of every argument what its code says."""
    found = typer.main.get_command(app)
    for command in _commands(found):
        callback = command.callback
        if callback is None or not any(isinstance(parameter, click.Argument) for parameter in command.params):
            continue
        told = get_params_from_function(inspect.unwrap(callback, stop=_says_its_options))
        for parameter in command.params:
            info = told[parameter.name].default if parameter.name in told else None
            if isinstance(parameter, click.Argument) and isinstance(info, ArgumentInfo):
                parameter.help = info.help
    return found


def _says_its_options(callback: Callable[..., object]) -> bool:
    """Whether a wrapper has other options than what it wraps."""
    return hasattr(callback, "__signature__")


def _commands(command: click.Command) -> Iterator[click.Command]:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _commands(inner)
    else:
        yield command
