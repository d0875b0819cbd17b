"""docs/cli.md, from the command line itself.

python -m thinwire.cli.command_page                   # writes docs/cli.md
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent

import click

import thinwire.flower  # noqa: F401  keeps Flower quiet before the commands import it
from thinwire.cli.commands import app
from thinwire.cli.described import command_line

PAGE = "cli.md"

PARTS: Mapping[str, Sequence[str]] = {
    "Prepare": ("init", "certs", "doctor"),
    "Run": ("simulate", "server", "client"),
    "Watch and steer": ("status", "watch", "pause", "resume", "stop", "checkpoint", "set", "clients"),
    "Look back": ("runs", "plot", "report"),
    "Learn": ("methods", "compressors", "lab"),
}
"""The commands by what they are for; one that is in none of these comes last."""

HEAD = """# The command line

Written by `python -m thinwire.cli.command_page` from the commands themselves; `thinwire COMMAND --help` says the same.
[operate.md](operate.md) is the way through them, from a first run to a resumed one.

- **Where a run is.** Commands that look at a run or steer it take a run directory; without one they take the newest
  below `runs/`, one whose server runs before any other. A run on another machine is named by `--address HOST:PORT` of
  its control service, with the operator's certificate: `--ca`, `--certificate` and `--key`, or
  `THINWIRE_OPERATOR_ADDRESS`, `THINWIRE_OPERATOR_CA`, `THINWIRE_OPERATOR_CERTIFICATE` and `THINWIRE_OPERATOR_KEY`. A
  server without TLS is commanded by its own user: the token is in the run directory's `control.json`, which is read
  where a run directory is named; with an address alone it is wanted as `THINWIRE_OPERATOR_TOKEN`.
- **Configuration.** Later ones win: `--config FILE`, the environment (`THINWIRE_UPLINK__FRACTION=0.02`), flags,
  `--set uplink.fraction=0.02`. A key that does not exist is an error that names the nearest one that does.
- **Exit codes.** 0 done, 1 the run failed, 2 the operator can fix it (one line says what), 130 interrupted.
- **Output.** `--json` prints JSON on standard output and nothing else there; progress and troubles go to standard
  error, with `--log-json` as one JSON object a line (time, level, run, round, client, event, message, fields).
- **Ctrl-C.** Once (or SIGTERM): the open round is finished, a checkpoint written, and a line says how to go on. Twice:
  now; the journal has every round that was decided.
- **Completion.** `thinwire --install-completion` teaches the shell the commands, and the names of methods, compressors,
  tasks and run directories.
"""


def page() -> str:
    """The whole page."""
    group = command_line(app)
    assert isinstance(group, click.Group)
    listed = {name for names in PARTS.values() for name in names}
    more = [name for name in group.commands if name not in listed]
    parts = [HEAD]
    for title, names in {**PARTS, "More": more}.items():
        commands = [(name, group.commands[name]) for name in names if name in group.commands]
        if commands:
            parts.append(f"## {title}\n")
            parts += [text for name, command in commands for text in _sections(f"thinwire {name}", command)]
    return "\n".join(parts)


def _sections(path: str, command: click.Command) -> Iterator[str]:
    """A command, or a group and its commands."""
    if isinstance(command, click.Group):
        yield f"### {path}\n\n{_prose(command)}"
        for name, inner in command.commands.items():
            yield from _sections(f"{path} {name}", inner)
        return
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    lines = [f"### {path}", "", _prose(command), f"```\n{usage}\n```", ""]
    rows = [row for parameter in command.params for row in _row(parameter)]
    if rows:
        lines += ["| | default | |", "|---|---|---|", *rows, ""]
    yield "\n".join(lines)


def _prose(command: click.Command) -> str:
    return dedent(command.help or "").replace("\f", "").strip() + "\n"


def _row(parameter: click.Parameter) -> Iterator[str]:
    """One line of the table; --help is everywhere."""
    if isinstance(parameter, click.Option) and parameter.name == "help":
        return
    text = str(getattr(parameter, "help", "") or "")
    variable = parameter.envvar
    text += f" `{variable}`" if isinstance(variable, str) else ""
    yield f"| {_names(parameter)} | {_default(parameter)} | {_cell(text)} |"


def _names(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return f"`{_metavar(parameter)}`"
    names = [*parameter.opts, *parameter.secondary_opts]
    value = "" if getattr(parameter, "is_flag", False) else f" {_metavar(parameter)}"
    return ", ".join(f"`{name}{value}`" for name in names)


def _metavar(parameter: click.Parameter) -> str:
    if parameter.metavar:
        return parameter.metavar.strip("[]")
    if isinstance(parameter, click.Argument):
        return str(parameter.name).upper()
    return {"integer": "N", "float": "X"}.get(parameter.type.name, parameter.type.name.upper())


def _default(parameter: click.Parameter) -> str:
    """The value without the option; empty where that is nothing in particular."""
    value = parameter.default
    if parameter.required:
        return "needed"
    if value in (None, "", False) or not isinstance(value, (str, int, float, Path)):
        return ""
    if value is True:
        return f"`{parameter.opts[0]}`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")


def main(arguments: Sequence[str]) -> None:
    """Write the page into the folder of the documentation."""
    docs = Path(arguments[0] if arguments else "docs")
    (docs / PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
