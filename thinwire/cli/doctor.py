"""``thinwire doctor``: everything that a run needs, looked at before the run needs it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from thinwire.cli.findings import Finding, broken, tried, well

FAILED = 2  # the operator can fix it
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

Config = Annotated[Path | None, typer.Option("--config", "-c", help="run.toml or client.toml to go by.")]
Server = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A server to be reached as a client would.")]
Pem = Path | None
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


def doctor(
    config: Config = None,
    server: Server = None,
    out: Annotated[Path, typer.Option(help="Where run directories go.")] = Path("runs"),
    ca: Annotated[Pem, typer.Option(help="Certificate that signed the server's (PEM).")] = None,
    certificate: Annotated[Pem, typer.Option(help="The client's certificate (PEM).")] = None,
    key: Annotated[Pem, typer.Option(help="Its private key (PEM).")] = None,
    name: Annotated[str | None, typer.Option(help="The client's name.")] = None,
    json_: Json = False,
) -> None:
    """Look at versions, disk, ports, certificates, clock, GPU and the way to the server; says what to do.

    Exit code 2 when something fails.
    """
    from thinwire.config import read_toml

    options = {} if config is None else read_toml(config)
    given = {"server": server, "ca": ca, "certificate": certificate, "key": key, "name": name}
    flags = {key: str(value) for key, value in given.items() if value is not None}
    found = []
    console = Console(soft_wrap=True)
    for finding in examine(options, flags, out, "" if config is None else str(config)):
        found.append(finding)
        if not json_:
            console.print(line(finding))
    counts = {state: sum(finding.state == state for finding in found) for state in STYLES}
    if json_:
        print(json.dumps({**counts, "findings": [dataclasses.asdict(finding) for finding in found]}))
    else:
        console.print(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed", highlight=False)
    if counts["fail"]:
        raise typer.Exit(FAILED)


def examine(options: Mapping[str, Any], flags: Mapping[str, str], out: Path, file: str = "") -> Iterator[Finding]:
    """All findings, as they come. ``options`` are those of ``file``, a run.toml or a client.toml, or none."""
    from thinwire.cli import machine

    client = _is_client(options)
    yield from machine.versions()
    yield machine.threads()
    yield machine.gpu()
    if not client:
        yield from machine.disk(out)
        yield machine.docker()
        yield from _server_side(options, file)
    if client or "server" in flags:
        yield from _client_side({**(options if client else {}), **flags}, file if client else "")


def _is_client(options: Mapping[str, Any]) -> bool:
    """Whether a file is a client.toml: it names a server; in a run.toml that is a section."""
    from client.settings import ClientSettings

    return bool(options) and not isinstance(options.get("server"), Mapping) and _fits(options, ClientSettings)


def _fits(options: Mapping[str, Any], kind: type) -> bool:
    return set(options) <= {field.name for field in dataclasses.fields(kind)}


def _server_side(options: Mapping[str, Any], file: str) -> Iterator[Finding]:
    """A run.toml: that it is right, and what its server needs."""
    from thinwire.cli import connections, machine
    from thinwire.cli.serving import ServerConfig
    from thinwire.config import build
    from thinwire.errors import ConfigError

    plain = dict(options)
    try:
        settings = build(ServerConfig, plain.pop("server", {}), "server")
        if file:
            yield from tried("run.toml", lambda: _run(plain, file))
    except ConfigError as error:
        yield broken("run.toml", str(error), f"mend {file}")
        return
    yield machine.port(settings.address, "fleet")
    control = str(getattr(settings, "control", "off"))
    if control not in ("", "off"):
        yield machine.port(control, "control")
    own = (settings.certificate, settings.key, settings.client_ca)
    yield from tried("server certificate", lambda: connections.certificate(*own, "server"))
    yield from tried("client CA", lambda: connections.authority(settings.client_ca, "client CA"))


def _run(options: Mapping[str, Any], file: str) -> Finding:
    """The configuration of a run: keys, values, method and compressors, task."""
    from strategies.flower import MethodStrategy
    from thinwire.run_config import RunConfig
    from thinwire.tasks import load_task

    config = RunConfig.of(options)
    MethodStrategy(config)
    load_task(config.task)
    return well("run.toml", f"{file} is right: {config.method['name']}, {config.rounds} rounds")


def _client_side(options: Mapping[str, Any], file: str) -> Iterator[Finding]:
    """A client.toml, and the way to its server."""
    from client.settings import settings_of
    from thinwire.cli import connections, machine
    from thinwire.cli.taking_part import session_options, state_of
    from thinwire.device import choose_device
    from thinwire.errors import ConfigError
    from thinwire.tasks import load_task

    try:
        settings = settings_of(options)
        session = session_options(settings)
        choose_device(settings.device)
        if settings.task.get("name"):
            load_task(settings.task)
    except ConfigError as error:
        yield broken("client.toml" if file else "client", str(error), f"mend {file}" if file else "")
        return
    if file:
        yield well("client.toml", f"{file} is right: {settings.name!r} for {settings.server}")
        yield from machine.disk(state_of(settings))
    if settings.identities:
        session = connections.with_identity(session, Path(settings.identities))
    yield from tried("CA certificate", lambda: connections.authority(session.ca, "CA certificate"))
    own = (session.certificate, session.key, session.ca)
    yield from tried("client certificate", lambda: connections.certificate(*own, "client"))
    yield from tried("server", lambda: connections.server(session))


def line(finding: Finding) -> Text:
    """One line for people; the advice is on the same one, so that grep shows it."""
    text = Text()
    text.append(f"{finding.state:<5}", STYLES[finding.state])
    text.append(f"{finding.name}: ", "bold")
    text.append(finding.detail)
    if finding.advice:
        text.append(f"; {finding.advice}", "cyan")
    return text


__all__ = ["doctor", "examine"]
