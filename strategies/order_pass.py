"""How far a client is in its order: which units come next, which pairs they complete, and where signs go."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from strategies.balancing import Signs, pairs
from strategies.base import Packet
from strategies.sketch import Rows

ORDER = "order"
"""The payload's name, up (sketches) and down (signs, personal)."""

SIGNS = struct.Struct("<QI")  # round of the window, pairs
UNKNOWN = 2


@dataclass(frozen=True)
class Pass:
    """A client's order and how far it is."""

    order: Tensor  # int64, the units of the present pass
    position: int = 0  # units done of it; past its end, of the next pass too, which begins alike
    signs: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8))  # of this pass's pairs or units
    ahead: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8))  # of the next pass's
    carry: Tensor | None = None  # sketch of a unit whose partner comes in the next round
    total: Tensor | None = None  # the client's own running sum in this pass (grab, id-grab)
    mean: Tensor | None = None  # of the gradients' sketches: of the pass before (grab)
    number: int = 0  # passes begun before this one
    awaited: int = 0  # the round whose signs are to come; 0: none
    first: int = 0  # where they go: a slot of signs, those of ahead counted after them
    count: int = 0


def next_units(now: Pass, length: int) -> list[int]:
    """The units of the next ``length`` positions; past the end of a pass its own beginning again."""
    order = now.order.tolist()
    return [order[(now.position + step) % len(order)] for step in range(length)] if order else []


def pairs_of(
    places: Sequence[int], sketches: Rows, count: int, carry: Tensor | None
) -> tuple[Rows, list[int], Tensor | None]:
    """Differences of the pairs that these places complete, their slots, and the sketch of a first one left alone."""
    rows, slots, first = [], [], None if carry is None else carry.cpu().numpy()
    for place, row in zip(places, sketches, strict=True):
        over, within = divmod(place, count)
        if within % 2 == 0:
            first = row
        elif first is not None:
            rows.append(first - row)
            slots.append(over * pairs(count) + within // 2)
            first = None
    lonely = bool(places) and places[-1] % count == count - 1 and count % 2 == 1  # the middle of an odd order
    kept = None if first is None or lonely else torch.from_numpy(np.array(first))
    return (np.stack(rows) if rows else np.zeros((0, sketches.shape[1]))), slots, kept


def filled(now: Pass, signs: Signs, first: int, slots: int) -> Pass:
    """The pass with signs written from slot ``first`` on, those past its own in ``ahead``."""
    both = np.full(2 * slots, UNKNOWN, np.uint8)
    for start, known in ((0, now.signs), (slots, now.ahead)):
        both[start : start + len(known)] = known.cpu().numpy()
    end = min(first + len(signs), len(both))
    both[first:end] = signs[: end - first]
    return replace(now, signs=torch.from_numpy(both[:slots].copy()), ahead=torch.from_numpy(both[slots:].copy()))


def signed(now: Pass, personal: Packet) -> Pass:
    """With the signs that the server sent, where they are those awaited."""
    payload = personal.get(ORDER)
    if payload is None or not now.awaited or len(payload.parameters) != SIGNS.size or len(payload.streams) != 1:
        return replace(now, awaited=0)
    number, count = SIGNS.unpack(payload.parameters)
    if (number, count) != (now.awaited, now.count) or len(payload.streams[0]) != -(-count // 8):
        return replace(now, awaited=0)
    signs = np.unpackbits(np.frombuffer(payload.streams[0], np.uint8), count=count)
    return replace(filled(now, signs, now.first, pairs(len(now.order))), awaited=0)
