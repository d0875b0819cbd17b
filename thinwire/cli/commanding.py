"""``thinwire pause | resume | stop | checkpoint | set | clients``: the operator's hand on a run that runs."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinwire.cli.fitting import print_fitting
from thinwire.cli.whereabouts import Json, RunOption, Whereabouts, at_a_run
from thinwire.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from thinwire.v1.operator_pb2 import Client, Done
    from thinwire.wire.operator import Operator

    Command = Callable[[Operator], Done]

clients_app = typer.Typer(no_args_is_help=True, help="The clients of a run: list, drain, ban.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of clients.")]
CLIENT_STATES = ("unknown", "connected", "absent", "drained", "banned")  # by ClientState
SPARE_OF_CLIENTS = ("weight", "examples", "last seen", "failed")  # on a narrow terminal, in this order
MOST_LISTED = 500  # a table takes a millisecond a line
States = Annotated[
    list[str] | None,
    typer.Option("--state", help=f"Only these: {', '.join(CLIENT_STATES[1:-1])} or {CLIENT_STATES[-1]}. Repeatable."),
]


@at_a_run()
def pause(where: Whereabouts, json_: Json = False) -> None:
    """Hold a run after the open round; its clients stay connected."""
    _told(where, [lambda operator: operator.pause()], json_)


@at_a_run()
def resume(where: Whereabouts, json_: Json = False) -> None:
    """Go on after a pause. A server that is gone is started anew: thinwire server --resume RUN_DIR."""
    _told(where, [lambda operator: operator.resume()], json_)


@at_a_run()
def stop(where: Whereabouts, json_: Json = False) -> None:
    """End a run after the open round, with a checkpoint; thinwire server --resume RUN_DIR goes on."""
    _told(where, [lambda operator: operator.stop()], json_)


@at_a_run()
def checkpoint(where: Whereabouts, json_: Json = False) -> None:
    """Write a checkpoint after the open round."""
    _told(where, [lambda operator: operator.checkpoint()], json_)


@at_a_run(RunOption)
def set_(
    assignments: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="participation.fraction=0.2 ...")],
    where: Whereabouts,
    json_: Json = False,
) -> None:
    """Change keys of a run from its next round on: rounds, participation, deadlines, rates."""
    keys = dict(map(_assignment, assignments))
    _told(where, [lambda operator: operator.change(keys)], json_)


@clients_app.command("list")
@at_a_run()
def list_clients(
    where: Whereabouts,
    state: States = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"Only the first so many (default: {MOST_LISTED}; with --json all).")
    ] = None,
    json_: Json = False,
) -> None:
    """The clients of a run: who is there, how fast, how many bytes; of a run that is over, from its record."""
    unknown = [one for one in state or () if one not in CLIENT_STATES[1:]]
    if unknown:
        raise ConfigError(f"--state {unknown[0]} is unknown; choose among {', '.join(CLIENT_STATES[1:])}")
    stored = where.record_told()
    if stored is not None:
        if state:
            raise ConfigError(f"--state asks the server of a run, and none answers for {where.name}")
        found = [{"state": "", "address": "", **client} for client in stored.clients()]
    else:
        with where.operator() as operator:
            found = [client_fields(client) for client in operator.clients()]
    chosen = [client for client in found if not state or client["state"] in state]
    if json_:
        print(json.dumps(chosen[:limit]))
        return
    shown = chosen[: limit or MOST_LISTED]
    print_fitting(lambda without: clients_table(shown, without), SPARE_OF_CLIENTS)
    if len(shown) < len(chosen):
        sys.stderr.write(f"{len(shown)} of {len(chosen)} clients; --limit N shows more, --json all\n")


@clients_app.command()
@at_a_run(RunOption)
def drain(
    names: Names,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Ask them again.")] = False,
    where: Whereabouts,
    json_: Json = False,
) -> None:
    """Ask clients no more, or again with --undo; their weights and their states stay."""
    _told(where, [_draining(name, undo) for name in names], json_)


@clients_app.command()
@at_a_run(RunOption)
def ban(
    names: Names,
    *,
    reason: Annotated[str, typer.Option(help="Told to the clients, and recorded.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    where: Whereabouts,
    json_: Json = False,
) -> None:
    """Put clients out of a run for good: their weights go to the others, their states are forgotten."""
    if sys.stdin.isatty() and not yes:
        typer.confirm(f"put {', '.join(names)} out of the run for good?", abort=True, err=True)
    _told(where, [_banning(name, reason) for name in names], json_)


def client_fields(client: "Client") -> dict[str, Any]:
    """A client as the record of a run has it, and what only its server knows."""
    return {
        "name": client.name,
        "index": client.index,
        "weight": client.weight,
        "examples": client.examples,
        "asked": client.asked,
        "replied": client.replied,
        "failures": client.failures,
        "uplink_bytes": client.uplink_bytes,
        "downlink_bytes": client.downlink_bytes,
        "last_seen": client.last_seen or None,
        "mean_seconds": client.mean_seconds or None,
        "last_seconds": client.last_seconds or None,
        "state": CLIENT_STATES[client.state],
        "version": client.version if client.version >= 0 else None,
        "last_failure": client.last_failure,
        "address": client.address,
    }


def clients_table(found: Sequence[Mapping[str, Any]], without: frozenset[str] = frozenset()) -> "Table":
    """A line for each client; some columns may be left out."""
    from rich.markup import escape
    from rich.table import Table

    from thinwire.cli.words import amount

    words = ("client", "state")
    names = (*words, "weight", "examples", "answered", "failed", "seconds", "up", "down", "last seen")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        if name not in without:
            table.add_column(name, justify="left" if name in words else "right", no_wrap=True)
    for one in found:
        seconds, seen = one["mean_seconds"], one["last_seen"]
        cells = {
            "client": escape(one["name"]) or f"#{one['index']}",
            "state": one.get("state", ""),  # which only a server knows
            "weight": "-" if one["weight"] is None else f"{one['weight']:.4f}",
            "examples": "-" if one["examples"] is None else str(one["examples"]),
            "answered": f"{one['replied']} of {one['asked']}",
            "failed": str(one["failures"]),
            "seconds": "" if seconds is None else f"{seconds:.2f}",
            "up": amount(one["uplink_bytes"]),
            "down": amount(one["downlink_bytes"]),
            "last seen": "" if seen is None else f"{datetime.fromtimestamp(seen):%H:%M:%S}",
        }
        table.add_row(*[cells[name] for name in names if name not in without])
    return table


def _draining(name: str, undo: bool) -> "Command":
    return lambda operator: operator.drain(name, undo)


def _banning(name: str, reason: str) -> "Command":
    return lambda operator: operator.ban(name, reason)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not an assignment; write KEY=VALUE, for example participation.fraction=0.2")
    return key.strip(), value.strip()


def _told(where: Whereabouts, commands: Sequence["Command"], as_json: bool) -> None:
    """Carry out commands, one after the other, and print what the server says; JSON of several is an array."""
    from thinwire.cli.standing import status_fields

    answers: list[dict[str, Any]] = []
    with where.operator() as operator:
        try:
            for command in commands:
                done = command(operator)
                answers.append({"message": done.message, "status": status_fields(done.status)})
                if not as_json:
                    print(done.message)
        finally:  # what was done is told also where the next is refused
            if as_json and answers:
                print(json.dumps(answers if len(commands) > 1 else answers[0]))


__all__ = ["checkpoint", "client_fields", "clients_app", "clients_table", "pause", "resume", "set_", "stop"]
