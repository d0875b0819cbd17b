"""The events that a report embeds: all kinds, the last ones of each, in few words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MOST_EVENTS = 2000
MOST_CHARACTERS = 300  # of one event; peers have a say in them
APART = ("event", "time", "sequence", "client", "round")  # fields with a column of their own


def events(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``kinds`` with how many there were of each, and ``shown``: [time, kind, client, round, words], oldest first."""
    counts = Counter(str(event.get("event", "")) for event in found)
    room = _room(counts, MOST_EVENTS)
    shown = []
    for event in reversed(found):
        kind = str(event.get("event", ""))
        if room[kind] > 0:
            room[kind] -= 1
            who, number = event.get("client"), event.get("round")
            time = event.get("time")
            shown.append(
                [
                    round(time, 3) if isinstance(time, (int, float)) else None,
                    kind[:60],
                    "" if who is None else str(who)[:80],
                    number if isinstance(number, int) else None,
                    words(event),
                ]
            )
    return {"of": len(found), "kinds": dict(sorted(counts.items())), "shown": shown[::-1]}


def words(event: Mapping[str, Any]) -> str:
    """What an event says besides its kind, client and round."""
    parts = []
    for key, value in event.items():
        if key in APART or value in (None, ""):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{name} = {inner}" for name, inner in value.items())
        elif isinstance(value, list) and (len(value) > 3 or any(isinstance(inner, dict) for inner in value)):
            value = len(value)
        parts.append(str(value) if key in ("detail", "keys") else f"{key} {value}")
    text = ", ".join(parts)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _room(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """How many of each kind: rare kinds whole, the frequent ones share what is left."""
    room, left = {}, most
    for place, (kind, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        room[kind] = min(count, left // (len(counts) - place))
        left -= room[kind]
    return room
