"""The Flower ClientApp: any of our clients behind Flower's messages, on every grid."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.desk import Desk
from client.settings import ClientSettings, settings_of
from client.store import DiskClientStore
from client.workshop import Workshops
from strategies.flower import KINDS, from_record, to_record
from thinwire.config import unflatten

from flwr.app import Context, Message  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip


def respond(desk: Desk, message: Message) -> Message:
    """One Flower message answered at a desk."""
    parts = desk.answer(KINDS[message.metadata.message_type], from_record(message.content))
    return Message(content=to_record(parts), reply_to=message)


@cache
def _workshops(task: tuple[tuple[str, Any], ...], device: str) -> Workshops:
    """Kept as long as the process lives: a model and its data are opened once."""
    return Workshops(dict(task), device)


def desk_of(context: Context) -> Desk:
    """The desk of a node of Flower's engines, which move clients between processes: all state is on disk.

    ``node_config`` may hold ``client-id``, ``partition-id``, ``state``, ``device`` and ``task.KEY``.
    """
    config: Mapping[str, Any] = context.node_config
    known = {key: config[key] for key in config if key.startswith("task.") or key in ("device", "state")}
    settings: ClientSettings = settings_of(unflatten(known))
    name = str(config.get("client-id", f"client-{int(config.get('partition-id', context.node_id)):05d}"))
    state = Path(settings.state or os.environ.get("FLWR_HOME", str(Path.home() / ".flwr"))) / "thinwire-clients"
    return Desk(
        name,
        str(settings.task.get("name", "")),
        _workshops(tuple(sorted(settings.task.items())), settings.device).open,
        lambda run: DiskClientStore(state, run, name),
        warm=False,
    )


def make_app() -> ClientApp:
    """The ClientApp that ``[tool.flwr.app.components]`` names."""
    made = ClientApp()

    @made.query("hello")
    def _hello(message: Message, context: Context) -> Message:
        return respond(desk_of(context), message)

    @made.query("welcome")
    def _welcome(message: Message, context: Context) -> Message:
        return respond(desk_of(context), message)

    @made.train()
    def _train(message: Message, context: Context) -> Message:
        return respond(desk_of(context), message)

    @made.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return respond(desk_of(context), message)

    return made


app = make_app()
