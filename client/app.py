"""The Flower ClientApp: any of our clients behind Flower's messages, on every grid."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.desk import Desk
from client.node import name_of, states_of
from client.settings import ClientSettings, settings_of
from client.store import DiskClientStore
from client.workshop import Workshops
from strategies.grid_transport import KINDS, from_record, to_record
from thinwire.config import merge, unflatten

from flwr.app import Context, Message  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip


def respond(desk: Desk, message: Message) -> Message:
    """One Flower message answered at a desk."""
    parts = desk.answer(KINDS[message.metadata.message_type], from_record(message.content))
    return Message(content=to_record(parts), reply_to=message)


@cache
def _workshops(task: str, device: str) -> Workshops:
    """Kept as long as the process lives: a model and its data are opened once. ``task`` is JSON."""
    return Workshops(json.loads(task), device)


def desk_of(context: Context, task: Mapping[str, Any] | None = None) -> Desk:
    """The desk of a node of Flower's engines, which move clients between processes: all state is on disk.

    ``node_config`` may hold ``client-id``, ``partition-id``, ``state``, ``device`` and ``task.KEY``, over ``task``.
    """
    config: Mapping[str, Any] = context.node_config
    known = {key: config[key] for key in config if key.startswith("task.") or key in ("device", "state")}
    settings: ClientSettings = settings_of(merge({"task": dict(task or {})}, unflatten(known)))
    name, state = name_of(config, context.node_id), states_of(config)
    return Desk(
        name,
        str(settings.task.get("name", "")),
        _workshops(json.dumps(settings.task, sort_keys=True), settings.device).open,
        lambda run: DiskClientStore(state, run, name),
        warm=False,
    )


def make_app(task: str | Mapping[str, Any] = "") -> ClientApp:
    """A ClientApp. ``task`` names a task of one's own, ``package.module:Class``, or holds its options and its name.

    A server can never make a client import code: a task of one's own is named here, or in the node's own config.
    """
    named: Mapping[str, Any] = ({"name": task} if task else {}) if isinstance(task, str) else task
    made = ClientApp()

    @made.query("hello")
    def _hello(message: Message, context: Context) -> Message:
        return respond(desk_of(context, named), message)

    @made.query("welcome")
    def _welcome(message: Message, context: Context) -> Message:
        return respond(desk_of(context, named), message)

    @made.train()
    def _train(message: Message, context: Context) -> Message:
        return respond(desk_of(context, named), message)

    @made.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return respond(desk_of(context, named), message)

    return made


app = make_app()
