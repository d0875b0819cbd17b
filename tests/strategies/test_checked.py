"""Uplinks that were decoded when they were checked are not decoded again, and nothing else is taken for them."""

import dataclasses

import pytest
import torch

from compressors import Expectation, Payload, decode
from compressors.top_k import TopK
from strategies.checked import Checked
from thinwire.errors import WireError
from thinwire.layout import Layout
from thinwire.random import Key

LAYOUT = Layout.flat(600)
COMPRESSOR = TopK(0.1)
EXPECTATION = Expectation(LAYOUT, torch.float32, COMPRESSOR.codecs)
KEY = Key(3, "update", 7, 1)


def payload_of(seed: int = 0) -> Payload:
    x = torch.randn(600, generator=torch.Generator().manual_seed(seed))
    return COMPRESSOR.encode(x, LAYOUT, KEY).payload


def test_what_was_checked_is_given_out_once_and_decoded_again_after_that():
    checked, payload = Checked(), payload_of()
    vector = checked.check(payload, EXPECTATION, KEY)
    taken = checked.take(payload, EXPECTATION, KEY)
    assert taken is vector
    taken.zero_()  # whoever has it may do so
    again = checked.take(payload, EXPECTATION, KEY)
    assert torch.equal(again, decode(payload, EXPECTATION, KEY))
    assert torch.equal(checked.take(payload, EXPECTATION, KEY), again)


def test_another_payload_key_or_expectation_is_decoded_by_itself():
    payload = payload_of()
    float64 = dataclasses.replace(EXPECTATION, dtype=torch.float64)
    for other in (dataclasses.replace(payload), payload_of(1)):
        checked = Checked()
        vector = checked.check(payload, EXPECTATION, KEY)
        assert checked.take(other, EXPECTATION, KEY) is not vector
        assert torch.equal(checked.take(other, EXPECTATION, KEY), decode(other, EXPECTATION, KEY))
    checked = Checked()
    vector = checked.check(payload, EXPECTATION, KEY)
    assert checked.take(payload, EXPECTATION, KEY.at(client=2)) is not vector
    checked.check(payload, EXPECTATION, KEY)
    with pytest.raises(WireError, match="is not this run's 'float64'"):
        checked.take(payload, float64, KEY)


def test_a_hostile_payload_is_refused_and_not_kept():
    checked = Checked()
    broken = dataclasses.replace(payload_of(), streams=(b"", b""))
    for _ in range(2):
        with pytest.raises(WireError):
            checked.check(broken, EXPECTATION, KEY)
        with pytest.raises(WireError):
            checked.take(broken, EXPECTATION, KEY)


def test_no_more_is_kept_than_there_is_room_for_until_the_next_attempt():
    checked = Checked(room_bytes=2 * 2400)
    payloads = [payload_of(seed) for seed in range(3)]
    vectors = [checked.check(payload, EXPECTATION, KEY) for payload in payloads]
    kept = [
        checked.take(payload, EXPECTATION, KEY) is vector for payload, vector in zip(payloads, vectors, strict=True)
    ]
    assert kept == [True, True, False]
    checked.keep(1, {"update": payloads[0]})
    assert checked.packet(1) is None, "the room of what was given out is free with the next attempt only"
    checked.forget()
    checked.keep(1, {"update": payloads[0]})
    assert checked.packet(1) is not None


def test_a_client_that_answers_again_has_its_last_packet_or_none():
    first, second = {"update": payload_of(0)}, {"update": payload_of(1)}
    checked = Checked(room_bytes=first["update"].size)
    checked.keep(1, first)
    checked.keep(1, second)
    assert checked.packet(1) is None
