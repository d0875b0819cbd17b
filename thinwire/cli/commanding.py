"""``thinwire pause | resume | stop | checkpoint | set | clients``: the operator's hand on a run that runs."""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinwire.cli.whereabouts import (
    Address,
    Ca,
    Certificate,
    Json,
    Key,
    RunDir,
    RunOption,
    Whereabouts,
)
from thinwire.errors import ConfigError

if TYPE_CHECKING:
    from thinwire.v1.operator_pb2 import Client, Done
    from thinwire.wire.operator import Operator

    Command = Callable[[Operator], Done]

clients_app = typer.Typer(no_args_is_help=True, help="The clients of a run: list, drain, ban.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of clients.")]
CLIENT_STATES = ("unknown", "connected", "absent", "drained", "banned")  # by ClientState


def pause(
    run: RunDir = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Hold a run after the open round; its clients stay connected."""
    _told(Whereabouts.of(run, address, ca, certificate, key), lambda operator: operator.pause(), json_)


def resume(
    run: RunDir = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Go on after a pause. A server that is gone is started anew: thinwire server --resume RUN_DIR."""
    _told(Whereabouts.of(run, address, ca, certificate, key), lambda operator: operator.resume(), json_)


def stop(
    run: RunDir = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """End a run after the open round, with a checkpoint; thinwire server --resume RUN_DIR goes on."""
    _told(Whereabouts.of(run, address, ca, certificate, key), lambda operator: operator.stop(), json_)


def checkpoint(
    run: RunDir = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Write a checkpoint after the open round."""
    _told(Whereabouts.of(run, address, ca, certificate, key), lambda operator: operator.checkpoint(), json_)


def set_(
    assignments: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="participation.fraction=0.2 ...")],
    run: RunOption = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Change keys of a run from its next round on: rounds, participation, deadlines, rates."""
    keys = dict(map(_assignment, assignments))
    _told(Whereabouts.of(run, address, ca, certificate, key), lambda operator: operator.change(keys), json_)


@clients_app.command("list")
def list_clients(
    run: RunDir = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """The clients of a run: who is there, how fast, how many bytes; of a run that is over, from its record."""
    where = Whereabouts.of(run, address, ca, certificate, key)
    stored = where.stored()
    if stored is not None:
        found = [{"state": "", "address": "", **client} for client in stored.clients()]
    else:
        with where.operator() as operator:
            found = [client_fields(client) for client in operator.clients()]
    if json_:
        print(json.dumps(found))
        return
    _print_clients(found)


@clients_app.command()
def drain(
    names: Names,
    undo: Annotated[bool, typer.Option("--undo", help="Ask them again.")] = False,
    run: RunOption = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Ask clients no more, or again with --undo; their weights and their states stay."""
    where = Whereabouts.of(run, address, ca, certificate, key)
    for name in names:
        _told(where, _draining(name, undo), json_)


@clients_app.command()
def ban(
    names: Names,
    reason: Annotated[str, typer.Option(help="Told to the clients, and recorded.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    run: RunOption = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Put clients out of a run for good: their weights go to the others, their states are forgotten."""
    where = Whereabouts.of(run, address, ca, certificate, key)
    if sys.stdin.isatty() and not yes:
        typer.confirm(f"put {', '.join(names)} out of the run for good?", abort=True, err=True)
    for name in names:
        _told(where, _banning(name, reason), json_)


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


def _print_clients(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from thinwire.cli.words import amount

    console = Console()
    if not console.is_terminal:
        console.width = 160  # nobody's terminal is too narrow
    narrow = console.width < 100
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("client", "state"):
        table.add_column(column, no_wrap=True)
    more = () if narrow else ("weight", "examples")
    for column in (*more, "answered", "failed", "seconds", "up", "down", "last seen"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        seconds, seen = one["mean_seconds"], one["last_seen"]
        cells = [one["name"], one["state"]]
        cells += [] if narrow else [f"{one['weight'] or 0:.4f}", str(one["examples"])]
        cells += [f"{one['replied']} of {one['asked']}", str(one["failures"])]
        cells += ["" if seconds is None else f"{seconds:.2f}"]
        cells += [amount(one["uplink_bytes"]), amount(one["downlink_bytes"])]
        cells += ["" if seen is None else f"{datetime.fromtimestamp(seen):%H:%M:%S}"]
        table.add_row(*cells)
    console.print(table)


def _draining(name: str, undo: bool) -> "Command":
    return lambda operator: operator.drain(name, undo)


def _banning(name: str, reason: str) -> "Command":
    return lambda operator: operator.ban(name, reason)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not an assignment; write KEY=VALUE, for example participation.fraction=0.2")
    return key.strip(), value.strip()


def _told(where: Whereabouts, command: "Command", as_json: bool) -> None:
    """Carry out one command and print what the server says."""
    with where.operator() as operator:
        done = command(operator)
    if as_json:
        from thinwire.cli.standing import status_fields

        print(json.dumps({"message": done.message, "status": status_fields(done.status)}))
    else:
        print(done.message)


__all__ = ["checkpoint", "client_fields", "clients_app", "pause", "resume", "set_", "stop"]
