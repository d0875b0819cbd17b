"""The downlink of a sum of messages: as short as an uplink where the clients share a mask."""

import torch
from torch import Tensor

from compressors import Compressor, Expectation, Payload, decode
from strategies.base import Packet, Round
from strategies.estimator import UPDATE
from thinwire.errors import WireError
from thinwire.layout import Layout
from thinwire.random import SHARED


def encode_sum(vector: Tensor, up: Compressor, down: Compressor, round: Round) -> tuple[Payload, Tensor]:
    """The sum (float64) of messages that ``up`` made, compressed by ``down``, and what it decodes to.

    If all messages of the round lie on one mask, the entries on it travel as a vector of their own: without an index,
    for the receiver draws the mask too, and without a second sparsifier. What else the vector holds is dropped, so it
    must be zero there, or be kept as an error.
    """
    layout, places = round.federation.layout, _places(up, round)
    sent = vector if places is None else vector[places.to(vector.device)]
    inner = layout if places is None else Layout.flat(len(places))
    encoded = round.encode(UPDATE, down, sent.to(round.federation.dtype), direction="down", layout=inner)
    return encoded.payload, _spread(encoded.decoded, places, layout)


def decode_sum(
    packet: Packet, up: Compressor, down: Compressor, round: Round, device: torch.device | str = "cpu"
) -> Tensor:
    """What ``encode_sum`` decoded, from the payload ``update`` of a downlink. Raises WireError."""
    key, places = round.key(UPDATE, "down", SHARED), _places(up, round)
    if places is None:
        return round.decode(packet, UPDATE, down, key, device)
    if UPDATE not in packet:
        raise WireError(f"payload {UPDATE!r} is missing; the message has {', '.join(sorted(packet)) or 'none'}")
    expectation = Expectation(Layout.flat(len(places)), round.federation.dtype, down.codecs)
    return _spread(decode(packet[UPDATE], expectation, key, device), places, round.federation.layout)


def _places(up: Compressor, round: Round) -> Tensor | None:
    """The mask that all messages of the round lie on."""
    places = up.support(round.federation.layout, round.key(UPDATE, "up", SHARED))
    return None if places is None else torch.from_numpy(places)


def _spread(values: Tensor, places: Tensor | None, layout: Layout) -> Tensor:
    """The values at their places, zero elsewhere."""
    if places is None:
        return values
    vector = torch.zeros(layout.numel, dtype=values.dtype, device=values.device)
    vector[places.to(values.device)] = values
    return vector
