"""A run's own record as lines of the log: an observer of its run directory."""

import logging
from collections.abc import Mapping
from typing import Any

from thinwire.cli import logs
from thinwire.cli.words import amount, shown

WORTH_A_WARNING = frozenset(
    {
        "refused",
        "hostile",
        "client-error",
        "client-lacks",
        "reset",
        "round-repeated",
        "fleet-refused",
        "fleet-rejected",
        "fleet-nonsense",
        "fleet-storage",
    }
)
"""Kinds of events that say that something went wrong, and that the run goes on all the same."""


class RunLog:
    """Logs all that is recorded of a run: for machines everything, for people with --log-level debug only.

    What people are to see of a run by default, its progress and its troubles, is shown in other ways.
    """

    def __init__(self, run: str) -> None:
        logs.bind(run=run)

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One line."""
        warned = kind in WORTH_A_WARNING
        level = (logging.WARNING if warned else logging.INFO) if logs.as_json() else logging.DEBUG
        plain = {name: value for name, value in fields.items() if name not in ("event", "time")}
        logs.say(sentence(kind, fields), kind, level, **plain)

    def close(self) -> None:
        """Nothing is kept."""


def sentence(kind: str, fields: Mapping[str, Any]) -> str:
    """An event or a round in words."""
    if kind == "round":
        metrics = "".join(f", {name} {fields[name]:.4f}" for name in ("loss", "accuracy") if _is_number(fields, name))
        replies = f"{len(fields.get('replied', ()))} of {len(fields.get('asked', ()))} clients"
        up, down = amount(fields.get("uplink_bytes", 0)), amount(fields.get("downlink_bytes", 0))
        return f"round {fields.get('round')}: {replies}{metrics}, up {up}, down {down}"
    if kind == "roster":
        return f"roster: {len(fields.get('clients', ()))} clients"
    client, detail = fields.get("client"), fields.get("detail")
    words = [kind.removeprefix("fleet-").replace("-", " "), f"client {client}" if client else "", detail or ""]
    rest = [f"{name} {value}" for name, value in fields.items() if name in ("round", "by", "reason", "replayed")]
    if isinstance(fields.get("keys"), Mapping):  # of a change: from and to
        pairs = fields["keys"].items()
        words.append(", ".join(f"{key} {' -> '.join(map(str, ends))}" for key, ends in pairs))
    return shown(": ".join(str(word) for word in words if word) + (f" ({', '.join(rest)})" if rest else ""))


def _is_number(fields: Mapping[str, Any], name: str) -> bool:
    return isinstance(fields.get(name), (int, float)) and not isinstance(fields.get(name), bool)
