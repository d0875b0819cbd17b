"""The messages of round.proto: limits, chains, histories, and the identity of a question."""

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.replicated import history_start
from thinwire.errors import WireError
from thinwire.wire.exchange import (
    MOST_METRICS,
    MOST_SMALL_BYTES,
    MOST_TEXT_BYTES,
    REASONS,
    EvaluateReply,
    HelloReply,
    RoundReply,
    RoundRequest,
    WelcomeReply,
    WelcomeRequest,
    chain_next,
    chain_of,
    chain_start,
    check_client_name,
    digest,
    new_run,
    question,
    read,
)

RUN = "0123456789abcdef" * 2


def short_sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


def test_a_message_comes_back():
    reply = RoundReply(run=RUN, round=3, uplink_digest=b"x" * 16, metrics={"loss": 0.5})
    assert read(RoundReply, reply.SerializeToString()) == reply


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        (HelloReply, HelloReply(task="x" * (MOST_TEXT_BYTES + 1)), "HelloReply.task is longer than"),
        (HelloReply, HelloReply(software="x" * (MOST_TEXT_BYTES + 1)), "HelloReply.software is longer than"),
        (WelcomeReply, WelcomeReply(refusal="x" * (MOST_TEXT_BYTES + 1)), "WelcomeReply.refusal is longer than"),
        (RoundReply, RoundReply(detail="x" * (MOST_TEXT_BYTES + 1)), "RoundReply.detail is longer than"),
        (RoundReply, RoundReply(run=RUN[:-1]), "bad run identifier"),
        (RoundReply, RoundReply(run=RUN.upper()), "bad run identifier"),
        (RoundReply, RoundReply(run="../" + RUN[3:]), "bad run identifier"),
        (RoundReply, RoundReply(metrics={str(i): 0.0 for i in range(MOST_METRICS + 1)}), "more than 64 metrics"),
        (EvaluateReply, EvaluateReply(metrics={str(i): 0.0 for i in range(65)}), "more than 64 metrics"),
        (RoundReply, RoundReply(uplink_digest=b"x" * MOST_SMALL_BYTES), "at most 1048576 are allowed here"),
    ],
)
def test_a_message_over_the_limits_is_refused(kind, message, reason):
    with pytest.raises(WireError, match=reason):
        read(kind, message.SerializeToString())


def test_a_configuration_over_its_limit_is_refused():
    welcome = WelcomeRequest(configuration="x" * ((1 << 20) + 1)).SerializeToString()
    with pytest.raises(WireError, match="a configuration longer than 1048576 bytes"):
        read(WelcomeRequest, welcome, 1 << 21)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data):
    with contextlib.suppress(WireError):
        assert isinstance(read(RoundReply, data), RoundReply)


@pytest.mark.parametrize("name", ["a", "client-0", "A.b_c@d-9", "x" * 128])
def test_a_good_name_is_taken(name):
    assert check_client_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-a", "a\n", "é", "x" * 129, "a\0"])
def test_a_name_that_is_no_name_in_a_path_is_refused(name):
    with pytest.raises(WireError, match="bad client name"):
        check_client_name(name)


def test_a_run_has_an_identifier_of_its_own():
    assert read(RoundReply, RoundReply(run=new_run()).SerializeToString()).run != new_run()


def test_chains_and_histories_are_the_documented_hashes():
    start = chain_start(RUN, 7, 2)
    assert start == short_sha(f"{RUN} 7 2".encode())
    assert chain_next(start, b"uplink") == short_sha(start + short_sha(b"uplink"))
    assert chain_of(start, [b"a", b"b"]) == chain_next(chain_next(start, b"a"), b"b")
    assert history_start(RUN) == short_sha(f"history {RUN}".encode())
    assert digest(b"") == short_sha(b"")
    assert start.hex() == "9c724ddb336c3a80ec6782cc4c8eff6e"


def test_a_question_is_all_that_decides_the_answer_and_nothing_else():
    request = RoundRequest(run=RUN, incarnation=1, round=2, attempt=3, place=4, cohort=5, target_version=6, chain=b"c")
    asked = question(request, b"history")
    changes = [("run", new_run()), ("incarnation", 9), ("round", 9), ("attempt", 9), ("place", 9), ("cohort", 9)]
    changes += [("target_version", 9), ("chain", b"d"), ("personal", b"p")]
    for name, value in changes:
        changed = RoundRequest.FromString(request.SerializeToString())
        setattr(changed, name, value)
        assert question(changed, b"history") != asked, name
    assert question(request, b"other") != asked
    for name, value in (("fresh", True), ("mirror", b"m"), ("replica_digest", b"r")):
        changed = RoundRequest.FromString(request.SerializeToString())
        setattr(changed, name, value)
        assert question(changed, b"history") == asked, name


def test_reasons_have_words():
    assert REASONS[2] == "lost private"
