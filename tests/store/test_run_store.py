"""The record of a run says what happened, to whoever reads it, while it is written and after any end."""

import math
import sqlite3
import threading
from contextlib import closing

import pytest
from store_kit import CONFIG, ROSTER, plain, recorded, row

from server.observers import Recorded
from server.run_directory import RunDirectory, new_run_folder
from server.run_store import holds_record, open_run, read_rounds
from server.run_store_schema import NAME, VERSION
from server.run_store_writer import PRUNE_EVERY, RunWriter
from thinwire.errors import ConfigError

# -- what is written is read --------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were_given(tmp_path):
    assert plain(read_rounds(recorded(tmp_path))) == [row(n, absent=[2] if n == 3 else []) for n in range(1, 9)]


@pytest.mark.parametrize(
    "given",
    [
        {"round": 1},
        {"round": 1, "asked": [], "replied": [], "client_bytes": {}, "client_seconds": {}, "train": {}},
        {**row(1), "client_bytes": {"0": [1, 2], "7": [0, 9]}},  # a newcomer was welcomed in the middle of the round
        {**row(1), "client_accuracy": 0.5, "accuracy": 0.1 + 0.2, "uplink_bytes": 1 << 40},
        {**row(1), "clock": {"day": 3, "names": ["a", None]}},
    ],
    ids=["bare", "nobody", "newcomer", "metrics", "nested"],
)
def test_any_row_comes_back_as_it_was_given(given, tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        folder.record("round", given)
    assert plain(read_rounds(tmp_path)) == [given]


def test_a_metric_that_is_not_finite_is_none(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        folder.record("round", {**row(1), "loss": math.nan, "train": {"loss": math.inf}})
    (found,) = read_rounds(tmp_path)
    assert found["loss"] is None
    assert found["train"] == {"loss": None}


def test_a_round_that_is_recorded_twice_counts_once_with_the_last_word(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        for number in (1, 2, 3, 2):
            folder.record("round", row(number))
        folder.record("round", row(3, clients=[1]))
    assert plain(read_rounds(tmp_path)) == [row(1), row(2), row(3, clients=[1])]
    assert [client["asked"] for client in open_run(tmp_path).clients()] == [2, 1, 2]


def test_rounds_beyond_the_one_that_a_run_resumes_from_are_undone(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        for number in range(1, 6):
            folder.record("round", row(number))
        folder.record("resumed", {"round": 3, "replayed": 0})
    assert [found["round"] for found in read_rounds(tmp_path)] == [1, 2, 3]
    assert open_run(tmp_path).clients()[0]["asked"] == 3


def test_the_last_records_are_read_without_those_before_them(tmp_path):
    run = open_run(recorded(tmp_path))
    everything = run.events(rounds=True)
    assert [event["sequence"] for event in everything] == sorted(event["sequence"] for event in everything)
    assert {event["event"] for event in everything} >= {"round", "roster", "refused"}
    for last in range(1, len(everything) + 2):
        assert run.events(limit=-last, rounds=True) == everything[-last:]
    for place, event in enumerate(everything):
        assert run.events(event["sequence"], rounds=True) == everything[place + 1 :]
        assert run.events(event["sequence"], limit=-2, rounds=True) == everything[place + 1 :][-2:]


def test_later_rounds_are_read_alone(tmp_path):
    assert plain(open_run(recorded(tmp_path)).rounds(after=6)) == [row(7), row(8)]


def test_clients_are_summed_up(tmp_path):
    first, second, third = open_run(recorded(tmp_path)).clients()
    last_round = read_rounds(tmp_path)[-1]["time"]
    assert (first["name"], first["index"], first["weight"], first["examples"]) == ("hospital-0", 0, 1 / 3, 10)
    assert (first["asked"], first["replied"], first["failures"]) == (8, 8, 0)
    assert (first["uplink_bytes"], first["downlink_bytes"]) == (800, 560)
    assert (first["last_seen"], first["mean_seconds"]) == (last_round, 0.125)
    assert (second["asked"], second["last_seen"], second["mean_seconds"]) == (0, None, None)
    assert (third["asked"], third["replied"], third["failures"]) == (8, 7, 1)
    assert (third["uplink_bytes"], third["downlink_bytes"]) == (700, 560)


def test_a_client_was_seen_when_it_connected_last(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        folder.record("roster", ROSTER)
        folder.record("fleet-opened", {"client": "hospital-1", "detail": ""})
        folder.record("refused", {"client": "hospital-0", "detail": "from us, not from it"})
    run = open_run(tmp_path)
    (opened,) = run.events(kinds=["fleet-opened"])
    assert [client["last_seen"] for client in run.clients()] == [None, opened["time"], None]


def test_events_are_numbered_together_with_the_rounds(tmp_path):
    run = open_run(recorded(tmp_path))
    assert [(event["sequence"], event["event"]) for event in run.events()] == [(1, "roster"), (10, "refused")]
    (refused,) = run.events(after=1)
    assert {"client": "eve", "detail": "not in the roster"}.items() <= refused.items()
    assert run.events(kinds=["hostile"]) == []
    everything = run.events(kinds=["round", "roster", "refused"])
    assert [event["sequence"] for event in everything] == list(range(1, 11))
    assert {**row(2), "event": "round", "sequence": 3}.items() <= everything[2].items()
    assert [event["sequence"] for event in run.events(after=4, kinds=["round"], limit=2)] == [5, 6]
    assert [event["event"] for event in run.events(limit=-1)] == ["refused"]


def test_observers_and_callers_hear_the_number_that_the_record_has(tmp_path):
    heard = []

    class Listener:
        def record(self, kind, fields):
            assert isinstance(fields, Recorded)
            heard.append((fields.sequence, fields.time, kind))

        def close(self): ...

    with RunDirectory(tmp_path, durable=False) as folder:
        folder.observers.add(Listener())
        assert folder.record("reset", {"client": "hospital-1"}) == 1
        assert folder.record("round", row(1)) == 2
    events = open_run(tmp_path).events(kinds=["reset", "round"])
    assert heard == [(event["sequence"], event["time"], event["event"]) for event in events]


def test_numbers_go_on_after_a_restart_even_where_events_were_forgotten(tmp_path):
    recorded(tmp_path)
    with closing(sqlite3.connect(tmp_path / NAME)) as connection, connection:
        connection.execute("DELETE FROM events")
    with RunDirectory(tmp_path, durable=False) as folder:
        assert folder.record("reset", {}) == 11


def test_only_the_newest_events_are_kept(tmp_path):
    with RunDirectory(tmp_path, durable=False, keep_events=10) as folder:
        for _ in range(PRUNE_EVERY):
            last = folder.record("hostile", {"client": "eve"})
        assert [event["sequence"] for event in open_run(tmp_path).events()] == list(range(last - 9, last + 1))


def test_a_peer_cannot_fill_the_disk_with_one_event(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        folder.record("hostile", {"client": "eve", "detail": "x" * 1_000_000})
    (event,) = open_run(tmp_path).events()
    assert len(event["detail"]) < 5_000


def test_what_a_client_claims_to_have_is_recorded_however_much_it_is(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        folder.record("roster", {"clients": [{"name": "boaster", "weight": 1.0, "examples": (1 << 64) - 1}]})
    assert open_run(tmp_path).clients()[0]["examples"] == (1 << 63) - 1
    (event,) = open_run(tmp_path).events()
    assert event["clients"][0]["examples"] == (1 << 64) - 1


@pytest.mark.parametrize(("row", "error"), [({"loss": 1.0}, KeyError), ({"round": 1 << 70}, OverflowError)])
def test_a_row_that_cannot_be_recorded_is_an_error_and_spoils_no_other(row, error, tmp_path):
    with RunDirectory(tmp_path) as folder:
        with pytest.raises(error):
            folder.record("round", row)
        folder.record("round", {"round": 1})
    assert [found["round"] for found in read_rounds(tmp_path)] == [1]


# -- how a run stands ---------------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(tmp_path):
    info = open_run(recorded(tmp_path)).info
    assert (info.run, info.method, info.uplink, info.downlink) == ("ab" * 16, "ef21", "top-k", "natural")
    assert (info.task, info.seed, info.config, info.schema_version) == ("digits", 4, CONFIG, VERSION)
    assert info.state == "finished"
    assert info.ended is not None
    assert info.ended >= info.started


def test_a_run_is_running_while_its_server_holds_it_and_killed_without_an_end(tmp_path):
    folder = RunDirectory(tmp_path, durable=False)
    folder.write_config(CONFIG)
    assert open_run(tmp_path).info.state == "running"
    folder.close()
    assert open_run(tmp_path).info.state == "killed"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (RuntimeError("out of memory"), "failed", "out of memory"),
        (RuntimeError(), "failed", "RuntimeError"),
    ],
)
def test_an_error_is_the_reason_for_the_end(error, state, reason, tmp_path):
    def work():
        with RunDirectory(tmp_path, durable=False) as folder:
            folder.write_config(CONFIG)
            raise error

    with pytest.raises(type(error)):
        work()
    info = open_run(tmp_path).info
    assert (info.state, info.reason) == (state, reason)


def test_a_resumed_run_keeps_its_start_and_counts_its_processes(tmp_path):
    first = open_run(recorded(tmp_path, end="stopped")).info
    with RunDirectory(tmp_path, durable=False) as folder:
        folder.write_config({**CONFIG, "rounds": 20})
        again = open_run(tmp_path).info
        folder.end("finished")
    assert (first.state, first.processes) == ("stopped", 1)
    assert (again.state, again.processes, again.ended, again.reason) == ("running", 2, None, "")
    assert (again.run, again.started, again.config["rounds"]) == (first.run, first.started, 20)


def test_a_new_run_may_take_a_folder_where_none_has_begun(tmp_path):
    with RunDirectory(tmp_path) as folder:
        folder.write_config(CONFIG)
    assert new_run_folder(tmp_path, "ef21") == tmp_path
    recorded(tmp_path / "run", rounds=1)
    with pytest.raises(ConfigError, match="holds a run already"):
        new_run_folder(tmp_path / "run", "ef21")


# -- reading is safe ----------------------------------------------------------------------------------------------


def test_readers_see_whole_rounds_while_others_are_written(tmp_path):
    done = threading.Event()
    counts = []

    def read():
        while not done.is_set() or not counts:
            rows = read_rounds(tmp_path)
            assert plain(rows) == [row(number) for number in range(1, len(rows) + 1)]
            counts.append(len(rows))

    with RunDirectory(tmp_path, durable=False) as folder:
        folder.record("round", row(1))
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(2, 150):
            folder.record("round", row(number))
        done.set()
        reader.join()
    assert counts == sorted(counts)
    assert len(read_rounds(tmp_path)) == 149


def test_rounds_and_events_from_many_threads_are_all_there_and_in_order(tmp_path):
    with RunDirectory(tmp_path, durable=False) as folder:
        given: dict[int, list[int]] = {}

        def write(place: int) -> None:
            given[place] = [folder.record("fleet-opened", {"client": f"c{place}", "n": n}) for n in range(25)]

        threads = [threading.Thread(target=write, args=(place,)) for place in range(6)]
        for thread in threads:
            thread.start()
        numbers = [folder.record("round", row(number)) for number in range(1, 26)]
        for thread in threads:
            thread.join()
    events = open_run(tmp_path).events(kinds=["fleet-opened", "round"])
    assert [event["sequence"] for event in events] == list(range(1, 7 * 25 + 1))
    for place, sequences in given.items():
        assert [e["sequence"] for e in events if e.get("client") == f"c{place}"] == sequences == sorted(sequences)
    assert [event["sequence"] for event in events if event["event"] == "round"] == numbers


def test_a_run_that_ended_leaves_one_file_and_reading_it_leaves_no_other(tmp_path):
    recorded(tmp_path)
    read_rounds(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "run.sqlite", "run.toml"]


def test_a_folder_without_a_run_is_told(tmp_path):
    assert not holds_record(tmp_path)
    assert read_rounds(tmp_path) == []
    with pytest.raises(ConfigError, match="holds no run"):
        open_run(tmp_path)


def test_a_damaged_record_is_told_in_one_line(tmp_path):
    (tmp_path / NAME).write_bytes(b"not a database, and long enough to look at" * 40)
    with pytest.raises(ConfigError, match=r"cannot read .*run\.sqlite: file is not a database"):
        open_run(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot write .*file is not a database; it is damaged: move it away"):
        RunWriter(tmp_path)


def test_another_program_that_holds_the_record_is_told(tmp_path):
    recorded(tmp_path)
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match=r"database is locked; another program holds it: close that"):
            RunWriter(tmp_path)
