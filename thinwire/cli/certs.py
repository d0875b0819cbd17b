"""``thinwire certs``: a small certificate authority for mutual TLS."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from thinwire.certificates import AUTHORITY_DAYS, CERTIFICATE_DAYS, Authority, Pair, Role
from thinwire.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Certificates for mutual TLS: an authority, a server, clients, operators.")

Dir = Annotated[Path, typer.Option("--dir", help="Folder of the authority and of the certificates it signs.")]
Days = Annotated[int, typer.Option(help="Days until it expires; never beyond the authority's own end.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there; the certificate before is revoked.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else on standard output.")]
FOLDER = Path("certs")


@app.command()
def init(
    folder: Dir = FOLDER,
    name: Annotated[str, typer.Option(help="Common name of the authority.")] = "thinwire",
    days: Days = AUTHORITY_DAYS,
    force: Annotated[bool, typer.Option("--force", help="Replace the authority; voids all it ever signed.")] = False,
    json_: Json = False,
) -> None:
    """Make an authority: ca.pem, which everyone needs, and ca.key, which only this folder does."""
    authority = Authority(folder)
    authority.create(name, days, force)
    _say({"ca": str(authority.certificate), "revoked": str(authority.revoked)}, json_)


@app.command()
def server(
    hosts: Annotated[list[str], typer.Argument(help="DNS names and addresses that clients dial, without the port.")],
    folder: Dir = FOLDER,
    name: Annotated[str, typer.Option(help="Common name, and name of the files.")] = "server",
    days: Days = CERTIFICATE_DAYS,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Sign a certificate for the server."""
    _issue(folder, "server", name, hosts, days, force, json_)


@app.command()
def client(
    names: Annotated[list[str], typer.Argument(help="Identities: the names that clients take part under.")],
    folder: Dir = FOLDER,
    days: Days = CERTIFICATE_DAYS,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Sign a certificate for each client."""
    authority = Authority(folder)
    for name in names:  # all of them or none
        authority.check_free(name, force)
    pairs = [authority.issue("client", name, (), days, force) for name in names]
    if json_:
        print(json.dumps([_fields(pair, authority) for pair in pairs]))
        return
    for pair in pairs:
        _say(_fields(pair, authority), as_json=False)


@app.command()
def operator(
    name: Annotated[str, typer.Argument(help="Who operates.")],
    folder: Dir = FOLDER,
    days: Days = CERTIFICATE_DAYS,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Sign a certificate for an operator, who may watch and steer a run."""
    _issue(folder, "operator", name, [], days, force, json_)


@app.command("list")
def list_(folder: Dir = FOLDER, json_: Json = False) -> None:
    """List the certificates that were signed, and which are still good."""
    authority = Authority(folder)
    if not authority.certificate.exists():
        raise ConfigError(
            f"{folder} holds no authority; make one with thinwire certs init, or name its folder with --dir"
        )
    issued = authority.issued()
    if json_:
        print(json.dumps([{**asdict(one), "expired": one.expired} for one in issued]))
        return
    table = Table(title=f"Certificates of {folder}", title_justify="left")
    for column in ("name", "role", "serial", "expires (UTC)", "state"):
        table.add_column(column)
    for one in issued:
        state = "revoked" if one.revoked else "expired" if one.expired else "valid"
        table.add_row(one.name, one.role, one.serial[:12], one.expires[:10], state)
    Console().print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Common name of the certificate.")],
    folder: Dir = FOLDER,
    json_: Json = False,
) -> None:
    """Revoke a certificate: servers that know revoked.txt refuse it from the next connection on."""
    _say(asdict(Authority(folder).revoke(name)) | {"revoked": str(Authority(folder).revoked)}, json_)


def _issue(folder: Path, role: Role, name: str, hosts: list[str], days: int, force: bool, as_json: bool) -> None:
    authority = Authority(folder)
    pair: Pair = authority.issue(role, name, hosts, days, force)
    _say(_fields(pair, authority), as_json)


def _fields(pair: Pair, authority: Authority) -> dict[str, object]:
    return {"certificate": str(pair.certificate), "key": str(pair.key), "ca": str(authority.certificate)}


def _say(fields: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(fields))
        return
    for key, value in fields.items():
        Console().print(f"{key}: {value}", highlight=False, soft_wrap=True)
