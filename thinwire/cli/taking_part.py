"""``thinwire client``: one client process, its model, data and device warm between rounds."""

import math
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Message

from client.app import respond
from client.desk import Desk
from client.fleet import FleetSession, SessionOptions
from client.identities import Claim, claim
from client.metrics import ClientMetrics
from client.settings import ClientSettings, settings_of
from client.store import DiskClientStore
from client.workshop import Workshops
from thinwire.cli import logs
from thinwire.cli.answer_log import answered
from thinwire.cli.interruption import Interruption, interruptible
from thinwire.device import choose_device
from thinwire.errors import ConfigError
from thinwire.prometheus import Endpoint
from thinwire.tasks import load_task


@interruptible
def take_part(options: Mapping[str, Any], interruption: Interruption) -> None:
    """Dial the server and answer until the run is over. Raises ConfigError when refused or out of patience."""
    settings, claimed = _claimed(settings_of(options))
    choose_device(settings.device)  # what cannot be used is told before the server is called
    if settings.task.get("name"):
        load_task(settings.task)
    desk = _desk(settings)
    session = FleetSession(session_options(settings), lambda message, context: _answer(desk, message, context))
    endpoint = _watched(desk, session, settings)
    logs.bind(client=settings.name)
    interruption.afterwards = f"{settings.name}: stopped; the same command takes part again, with its state"
    stop, leave = threading.Event(), threading.Event()
    then = "this client leaves once it has answered what it is asked"
    try:
        with interruption.ends(lambda by: leave.set(), then, stop.set):
            reason = session.run_forever(stop, leave)
    finally:
        if claimed is not None and session.refused:
            claimed.refused()
        if endpoint is not None:
            endpoint.close()
    if reason:
        interruption.by = None  # the run was over first
        logs.say(f"{settings.name}: {reason}", "finished")


def _answer(desk: Desk, message: Message, context: Context) -> Message:
    return answered(lambda asked: respond(desk, asked), message)


def _watched(desk: Desk, session: FleetSession, settings: ClientSettings) -> Endpoint | None:
    """Serve metrics of this client, where its settings say so. Raises ConfigError."""
    if not settings.metrics:
        return None
    metrics = ClientMetrics(settings.name, lambda: session.dials)
    desk.watch = metrics
    endpoint = Endpoint(settings.metrics, metrics.registry)
    sys.stderr.write(f"metrics are at http://{endpoint.address}/metrics\n")
    return endpoint


def _claimed(settings: ClientSettings) -> tuple[ClientSettings, Claim | None]:
    """With a name and certificate of the folder of identities, where one is given."""
    if not settings.identities:
        return settings, None
    if settings.certificate or settings.key:
        raise ConfigError("give either identities, or certificate and key, not both")
    taken = claim(Path(settings.identities), state_of(settings))
    return replace(settings, name=taken.name, certificate=str(taken.certificate), key=str(taken.key)), taken


def state_of(settings: ClientSettings) -> Path:
    """The folder of private states."""
    return Path(settings.state).expanduser() if settings.state else Path.home() / ".thinwire" / "clients"


def _desk(settings: ClientSettings) -> Desk:
    state = state_of(settings)
    return Desk(
        settings.name,
        str(settings.task.get("name", "")),
        Workshops(settings.task, settings.device).open,
        lambda run: DiskClientStore(state, run, settings.name),
    )


def session_options(settings: ClientSettings) -> SessionOptions:
    """How to call the server. Raises ConfigError."""

    def path(text: str) -> Path | None:
        return Path(text) if text else None

    return SessionOptions(
        address=settings.server,
        identity=settings.name,
        token=settings.token,
        ca=path(settings.ca),
        certificate=path(settings.certificate),
        key=path(settings.key),
        insecure=settings.insecure,
        insecure_address=settings.insecure_address,
        server_name=settings.server_name,
        keepalive_seconds=settings.keepalive_seconds,
        patience_seconds=settings.patience_seconds or math.inf,
    )
