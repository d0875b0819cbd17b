"""Compressors around others: how their payloads are joined, and what each promises."""

from dataclasses import replace

import pytest

from compressors import Payload
from compressors.nested import nest, unnest
from thinwire.errors import WireError

INNER = (
    Payload("top-k", "float32", b"abc", (b"1", b"22")),
    Payload("identity", "float32", b"", (b"333",)),
    Payload("natural", "float32", b"de", (b"4444",)),
)


def test_payloads_come_out_of_a_nest_as_they_went_in():
    for count in (1, 2, 3):
        whole = nest("outer", INNER[:count], b"own", (b"mine",))
        assert whole.codec == f"outer({','.join(payload.codec for payload in INNER[:count])})"
        assert whole.size == 7 + sum(payload.size for payload in INNER[:count]) + 3 * (count - 1)
        assert unnest(whole, count, 3, 1) == INNER[:count]


def test_nests_are_read_strictly():
    whole = nest("outer", INNER, b"own", (b"mine",))
    for count in (1, 2, 4):
        with pytest.raises(WireError, match="with 3 inside"):
            unnest(whole, count, 3, 1)
    for size in range(3 + 3 + 3 + 3):
        with pytest.raises(WireError):
            unnest(replace(whole, parameters=whole.parameters[:size]), 3, 3, 1)
    for number in range(4):
        with pytest.raises(WireError):
            unnest(replace(whole, streams=whole.streams[:number]), 3, 3, 1)
    with pytest.raises(WireError, match="with 0 inside"):
        unnest(replace(whole, codec="outer"), None)
