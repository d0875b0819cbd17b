"""What a report says of each client: bytes, answers, times, and a map of who took part when."""

import base64
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinwire.cli.page_curves import short
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.run_summary import dense

MOST_CLIENTS = 1000  # that a page lists and maps
SLOWEST = 8
MOST_NAME = 80  # characters of a name
MAP_COLUMNS = 300
MAP_CELLS = 120_000
FAILURES = ("client-error", "hostile", "client-lacks")  # events of a client that was asked and did not deliver

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Sums:
    """Over all rounds, by client index."""

    asked: Counts
    replied: Counts
    failed: Counts
    up: Counts
    down: Counts
    dense_up: NDArray[np.float64]
    dense_down: NDArray[np.float64]
    answers: Counts  # whose time is known
    seconds: NDArray[np.float64]
    longest: NDArray[np.float64]
    last: Counts  # rounds in which it was the last to answer
    map: dict[str, NDArray[np.uint16]]  # asked, replied, failed: client x stretch of rounds
    width: int  # rounds in a stretch

    def bytes(self) -> dict[str, Counts | NDArray[np.float64]]:
        """By direction, as sent and in float32."""
        return {"up": self.up, "down": self.down, "denseUp": self.dense_up, "denseDown": self.dense_down}


def clients(run: RecordedRun) -> dict[str, Any]:
    """Columns over the clients that are listed, sums and the slowest of all, and the map of participation; for JSON."""
    roster = _roster(run)
    sums = _sums(run, roster)
    shown = min(len(roster), MOST_CLIENTS)
    return {
        "of": len(roster),
        "name": [client["name"][:MOST_NAME] for client in roster[:shown]],
        "examples": [client.get("examples") for client in roster[:shown]],
        **{name: getattr(sums, name)[:shown].tolist() for name in ("asked", "replied", "failed", "up", "down")},
        "denseUp": [round(value) for value in sums.dense_up[:shown]],
        "denseDown": [round(value) for value in sums.dense_down[:shown]],
        "total": {name: round(float(values.sum())) for name, values in sums.bytes().items()},
        "slowest": _slowest(roster, sums),
        "map": _packed(sums, shown, int(run.rows[0]["round"]) if run.rows else 1, run.rounds),
    }


def _slowest(roster: Sequence[Mapping[str, Any]], sums: Sums) -> list[dict[str, Any]]:
    """Of all clients those with the longest mean answers, and the share of them with which they came last."""
    timed = np.flatnonzero(sums.answers)
    means = sums.seconds / np.maximum(1, sums.answers)
    return [
        {
            "name": roster[place]["name"][:MOST_NAME],
            "mean": short(means[place]),
            "longest": short(sums.longest[place]),
            "last": sums.last[place] / sums.replied[place] if sums.replied[place] else None,
        }
        for place in timed[np.argsort(-means[timed], kind="stable")][:SLOWEST].tolist()
    ]


def _roster(run: RecordedRun) -> list[dict[str, Any]]:
    """Names and examples in index order; clients that no roster names are numbered."""
    named: list[dict[str, Any]] = []
    for event in run.events:
        if event.get("event") == "roster" and isinstance(event.get("clients"), list):
            named = [{**client, "name": str(client.get("name", ""))} for client in event["clients"]]
    highest = max((max(row.get("asked") or [-1]) for row in run.rows), default=-1)
    return named + [{"name": f"client {index}"} for index in range(len(named), highest + 1)]


def _sums(run: RecordedRun, roster: Sequence[Mapping[str, Any]]) -> Sums:
    count, start = len(roster), int(run.rows[0]["round"]) if run.rows else 1
    rounds = max(1, run.rounds - start + 1)
    columns = min(MAP_COLUMNS, max(60, MAP_CELLS // max(1, min(count, MOST_CLIENTS))))
    width = math.ceil(rounds / columns)
    bins = math.ceil(rounds / width)
    map_ = {name: np.zeros((count, bins), np.uint16) for name in ("asked", "replied", "failed")}
    whole = [np.zeros(count, np.int64) for _ in range(7)]
    real = [np.zeros(count) for _ in range(4)]
    asked, replied, failed, up, down, answers, last = whole
    dense_up, dense_down, seconds, longest = real
    failures = _failures(run, {str(client["name"]): index for index, client in enumerate(roster)})
    for row in run.rows:
        was_asked, has_replied = row.get("asked") or [], row.get("replied") or []
        lost = sorted(failures.get(int(row["round"]), set()) & set(was_asked) - set(has_replied))
        up_dense, down_dense = dense(row)
        place = (int(row["round"]) - start) // width
        for total, name, who in (
            (asked, "asked", was_asked),
            (replied, "replied", has_replied),
            (failed, "failed", lost),
        ):
            total[who] += 1
            map_[name][who, place] += 1
        dense_down[was_asked] += down_dense / max(1, len(was_asked))
        dense_up[has_replied] += up_dense / max(1, len(has_replied))
        sizes = row.get("client_bytes") or {}
        if sizes:
            who = np.fromiter(map(int, sizes), np.int64)
            both = np.array(list(sizes.values()), np.int64)
            np.add.at(up, who, both[:, 0])
            np.add.at(down, who, both[:, 1])
        times = row.get("client_seconds") or {}
        if times:
            who, took = np.fromiter(map(int, times), np.int64), np.fromiter(times.values(), float)
            answers[who] += 1
            seconds[who] += took
            longest[who] = np.maximum(longest[who], took)
            last[who[np.argmax(took)]] += 1
    return Sums(asked, replied, failed, up, down, dense_up, dense_down, answers, seconds, longest, last, map_, width)


def _failures(run: RecordedRun, index: Mapping[str, int]) -> dict[int, set[int]]:
    """Round -> clients whose answer was an error, or none that could be used."""
    found: dict[int, set[int]] = defaultdict(set)
    for event in run.events:
        client = index.get(str(event.get("client")))
        if event.get("event") in FAILURES and client is not None and isinstance(event.get("round"), int):
            found[event["round"]].add(client)
    return found


def _packed(sums: Sums, shown: int, first: int, last: int) -> dict[str, Any]:
    """Counts as base64 of bytes, row by row, or nothing where all are zero; two bytes a count beyond 255 rounds."""
    size = 1 if sums.width <= 255 else 2
    planes = {
        name: base64.b64encode(
            plane[:shown].astype("<u2" if size == 2 else "u1").tobytes() * bool(plane.any())
        ).decode()
        for name, plane in sums.map.items()
    }
    return {
        "first": first,
        "last": last,
        "width": sums.width,
        "columns": int(sums.map["asked"].shape[1]),
        "size": size,
        **planes,
    }
