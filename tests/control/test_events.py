"""What is kept of a run for those who watch it is bounded, whoever watches and however slowly."""

import json
import math
import threading
from pathlib import Path

import pytest
from control_kit import running, wait_for

from server.control.events import MOST_AT_ONCE, EventLog, as_event
from server.control.tally import Tally
from server.observers import Recorded
from thinwire.v1 import operator_pb2 as messages


def test_a_watcher_that_is_too_slow_hears_of_a_gap_and_goes_on_with_what_is_kept() -> None:
    log = EventLog(most=10)
    for number in range(1, 4):
        log.append("round", {"round": number})
    arrival, found = log.since(0, 0)
    assert [event.round for event in found] == [1, 2, 3]
    for number in range(4, 31):
        log.append("round", {"round": number})
    arrival, found = log.since(arrival, 0)
    assert (found[0].kind, json.loads(found[0].fields)) == ("gap", {"missed": 17})
    assert [event.round for event in found[1:]] == list(range(21, 31))
    assert log.since(arrival, 0) == (arrival, [])


def test_a_watcher_that_comes_back_hears_of_a_gap_only_if_something_is_gone() -> None:
    log = EventLog(most=10)
    for number in range(1, 21):
        log.append("round", {"round": number})
    assert [event.sequence for event in log.since(0, 15)[1]] == [16, 17, 18, 19, 20]
    assert [event.kind for event in log.since(0, 4)[1]][:2] == ["gap", "round"]
    assert [event.sequence for event in log.since(0, 0)[1]] == list(range(11, 21)), "all that there is"
    assert log.since(0, 20)[1] == []
    assert log.since(0, 10**6)[1] == []


def test_events_have_the_numbers_of_the_record_even_where_threads_overtake_each_other() -> None:
    log = EventLog()
    for sequence in (5, 7, 6, 8):
        log.append("note", Recorded({"n": sequence}, sequence, 1e9 + sequence))
    arrival, found = log.since(0, 5)
    assert [event.sequence for event in found] == [7, 6, 8]
    assert [event.time for event in found] == [1e9 + 7, 1e9 + 6, 1e9 + 8]
    assert (arrival, log.last) == (4, 8)


def test_many_events_come_in_portions() -> None:
    log = EventLog()
    for number in range(250):
        log.append("note", {"n": number})
    arrival, seen = 0, []
    while True:
        arrival, found = log.since(arrival, 0)
        assert len(found) <= MOST_AT_ONCE
        if not found:
            break
        seen += [json.loads(event.fields)["n"] for event in found]
    assert seen == list(range(250))


def test_writers_from_many_threads_wait_for_nobody_and_lose_nothing() -> None:
    log, woken = EventLog(), threading.Event()
    leave = log.listen(woken.set)
    threads = [
        threading.Thread(target=lambda: [log.append("note", {}) for _ in range(200)])
        for _ in range(4)  # type: ignore[func-returns-value]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert woken.is_set()
    assert log.last == 800
    leave()
    woken.clear()
    log.append("note", {})
    assert not woken.is_set()


def test_an_event_is_plain_json_and_of_bounded_size() -> None:
    event = as_event("fleet-opened", {"client": "ann", "loss": math.nan, "nested": {"a": [math.inf, 1]}})
    assert (event.kind, event.client) == ("opened", "ann")
    assert json.loads(event.fields) == {"client": "ann", "loss": None, "nested": {"a": [None, 1]}}
    large = {f"key{i}": "x" * 900 for i in range(100)} | {
        "round": 3,
        "client_bytes": {str(i): [1, 2] for i in range(9_000)},
    }
    event = as_event("round", large)
    assert len(event.fields) <= 64_000
    assert event.round == 3
    assert "client_bytes" in json.loads(event.fields)["left_out"]


@pytest.mark.parametrize("number", [-1, True, "7", None, 1.5])
def test_a_round_that_is_no_number_of_a_round_is_none(number: object) -> None:
    assert as_event("note", {"round": number}).round == 0


def test_the_tally_counts_what_a_client_was_asked_answered_and_failed_in() -> None:
    tally = Tally()
    row = {"uplink_bytes": 9, "downlink_bytes": 7, "dense_bytes": 80, "train": {}, "attempt": 0, "seconds": 1.0}
    tally.add({**row, "round": 1, "asked": [0, 2], "replied": [0, 2], "client_bytes": {"0": [4, 3]}, "loss": 0.5})
    tally.fail(2, 2, "its gradient is not finite")
    tally.add({**row, "round": 2, "asked": [0, 1, 2], "replied": [0], "client_seconds": {"0": 0.25}})
    assert (tally.run.uplink_bytes, tally.run.dense_bytes, tally.run.last) == (18, 160, {"loss": 0.5})
    first, second, third = (tally.clients[index] for index in range(3))
    assert (first.asked, first.replied, first.uplink_bytes, first.mean_seconds) == (2, 2, 4, 0.25)
    assert (second.asked, second.replied, second.last_failure) == (1, 0, "round 2: no answer in time")
    assert (third.asked, third.replied, third.last_failure) == (2, 1, "round 2: its gradient is not finite")


def test_a_watcher_that_takes_nothing_holds_nobody_up(tmp_path: Path) -> None:
    with running(tmp_path, evaluation={"where": "none"}) as (server, operator):
        watcher = operator.watch(0, timeout_seconds=120)
        next(watcher)
        wait_for(lambda: operator.status().round >= 20, "twentieth round while nobody reads")
        assert operator.status().state == messages.RUN_STATE_RUNNING
        watcher.close()
        server.close()
