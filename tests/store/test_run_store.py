"""The record of a run says what happened, to whoever reads it, while it is written and after any end."""

import json
import math
import os
import shutil
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from store_kit import CONFIG, ROSTER, python, row

from server.observers import Recorded
from server.run_directory import RunDirectory, new_run_folder
from server.run_store import holds_record, open_run, read_rounds
from server.run_store_schema import APPLICATION, NAME, VERSION
from server.run_store_writer import PRUNE_EVERY, RunWriter
from thinwire.errors import ConfigError

# -- what is written is read --------------------------------------------------------------------------------------


def plain(rows: list[dict]) -> list[dict]:
    assert all(found["time"] > 0 for found in rows)
    return [{key: value for key, value in found.items() if key != "time"} for found in rows]


def recorded(path: Path, rounds: int = 8, end: str = "finished") -> Path:
    """A run directory with a run."""
    with RunDirectory(path, durable=False) as folder:
        folder.write_config(CONFIG)
        folder.record("roster", ROSTER)
        for number in range(1, rounds + 1):
            folder.record("round", row(number, absent=[2] if number == 3 else []))
        folder.record("refused", {"client": "eve", "detail": "not in the roster"})
        folder.end(end)
    return path


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


# -- versions -----------------------------------------------------------------------------------------------------


def test_a_newer_version_is_refused_by_readers_and_writers_and_stays_as_it_is(tmp_path):
    recorded(tmp_path)
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 41}")
    before = (tmp_path / NAME).read_bytes(), (tmp_path / "run.toml").read_bytes()
    told = rf"run\.sqlite has schema version {VERSION + 41} and this Thinwire knows versions up to {VERSION}"
    with pytest.raises(ConfigError, match=told):
        open_run(tmp_path)
    with RunDirectory(tmp_path) as folder, pytest.raises(ConfigError, match=told):
        folder.write_config({**CONFIG, "rounds": 99})
    assert ((tmp_path / NAME).read_bytes(), (tmp_path / "run.toml").read_bytes()) == before


def test_another_programs_database_is_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(ConfigError, match="another program's database"):
        open_run(tmp_path)


def old_directory(path: Path, done: bool = True) -> Path:
    """As a Thinwire without run.sqlite left it, killed in the middle of a line."""
    path.mkdir()
    lines = [{"time": 1000.0 + number, **row(number)} for number in (1, 2, 3, 2, 3, 4)]
    lines[3]["time"] = 1003.5
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"time": 1005.0, "round": 5, "upl'
    (path / "metrics.jsonl").write_text(text)
    events = [{"time": 1000.5, "event": "roster", "clients": ROSTER["clients"]}]
    events += [{"time": 1002.5, "event": "hostile", "client": "hospital-1", "detail": "nonsense"}]
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "run.toml").write_text('seed = 7\nmethod = {name = "ef14"}\nuplink = {name = "sign"}\n')
    if done:
        (path / "model.safetensors").write_bytes(b"")
    return path


def check_imported(path: Path) -> None:
    run = open_run(path)
    assert plain(run.rounds()) == [row(number) for number in (1, 2, 3, 4)]
    assert [found["time"] for found in run.rounds()] == [1001.0, 1003.5, 1003.0, 1004.0]
    assert [(e["time"], e["event"]) for e in run.events()] == [(1000.5, "roster"), (1002.5, "hostile")]
    assert [client["name"] for client in run.clients()] == ["hospital-0", "hospital-1", "hospital-2"]
    info = run.info
    assert (info.method, info.uplink, info.seed, info.started) == ("ef14", "sign", 7, 1000.5)


def test_a_directory_of_an_older_version_is_read_as_it_lies_there(tmp_path):
    path = old_directory(tmp_path / "run")
    before = sorted(file.name for file in path.iterdir())
    check_imported(path)
    assert (open_run(path).info.state, open_run(path).info.ended) == ("finished", 1004.0)
    assert sorted(file.name for file in path.iterdir()) == before


def test_a_run_of_an_older_version_is_imported_once_when_it_goes_on(tmp_path):
    path = old_directory(tmp_path / "run", done=False)
    assert open_run(path).info.state == "stopped"
    with RunDirectory(path) as folder:
        folder.record("resumed", {"round": 4, "replayed": 0})
    with RunDirectory(path) as folder:  # a second time nothing is imported
        folder.record("round", row(5))
    assert plain(read_rounds(path)) == [row(number) for number in (1, 2, 3, 4, 5)]
    assert [event["event"] for event in open_run(path).events()] == ["roster", "hostile", "resumed"]
    assert (path / "metrics.jsonl").exists()
    (path / "metrics.jsonl").unlink()
    (path / "events.jsonl").unlink()
    assert len(read_rounds(path)) == 5


def test_an_import_that_is_cut_short_is_done_anew(tmp_path):
    path = old_directory(tmp_path / "run")
    sqlite3.connect(path / NAME).close()
    (path / NAME).touch()  # killed before the one transaction of the import was committed
    check_imported(path)
    RunWriter(path).close()
    check_imported(path)


def test_the_file_says_that_it_is_a_record_of_thinwire(tmp_path):
    head = (recorded(tmp_path) / NAME).read_bytes()[:100]
    assert head[68:72] == APPLICATION.to_bytes(4, "big") == b"TWIR"


# -- kill -9 ------------------------------------------------------------------------------------------------------

RECORD_FOR_EVER = """
import itertools, sys, threading
from pathlib import Path
from server import run_lock
from server.run_store import read_rounds
from server.run_store_writer import RunWriter
from store_kit import CONFIG, row

path = Path(sys.argv[1])
path.mkdir(exist_ok=True)
lock = run_lock.take(path)
folder = RunWriter(path)
folder.begin(CONFIG)
first = max((found["round"] for found in read_rounds(path)), default=0) + 1
turn = threading.Semaphore(2)
def gossip():
    for number in itertools.count():
        turn.acquire()
        folder.record("fleet-opened", {"client": f"hospital-{number % 3}", "detail": "x" * (number % 900)})
threading.Thread(target=gossip, daemon=True).start()
for number in itertools.count(first):
    folder.record("round", row(number, clients=range(number % 60)))
    print(number, flush=True)
    turn.release(2)
"""


def test_a_server_killed_in_the_middle_of_writing_loses_nothing_that_it_had_recorded(tmp_path):
    told, after = 0, 0
    for kill in range(12):
        with python(RECORD_FOR_EVER, tmp_path) as process:
            assert process.stdout is not None
            for _ in range(3 + 7 * kill):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
        assert process.returncode == -signal.SIGKILL
        rows = read_rounds(tmp_path)
        assert [found["round"] for found in rows] == list(range(1, len(rows) + 1))
        assert told <= len(rows) <= told + 1
        assert plain(rows) == [row(number, clients=range(number % 60)) for number in range(1, len(rows) + 1)]
        run = open_run(tmp_path)
        numbers = [event["sequence"] for event in run.events(kinds=["round", "fleet-opened"])]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > after
        after = len(numbers)
        assert run.info.state == "killed"
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert open_run(tmp_path).info.processes == 12


# -- disks that cannot be written ---------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path):
    """``mount(kind, *options)`` mounts on a folder that is unmounted at the end; skipped where that is not allowed."""
    from subprocess import run as call

    mounted = []

    def make(name: str, *arguments: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        if os.geteuid() or call(["mount", *arguments, str(path)], capture_output=True).returncode:
            pytest.skip("mounting is not permitted here")
        mounted.append(path)
        return path

    yield make
    for path in reversed(mounted):
        assert call(["umount", str(path)], capture_output=True).returncode == 0


def read_only(mount, path: Path) -> Path:
    """The folder as a read-only file system shows it."""
    from subprocess import run as call

    seen = mount("seen", "--bind", str(path))
    assert call(["mount", "-o", "remount,ro,bind", str(seen)]).returncode == 0
    return seen


@pytest.mark.parametrize("log", ["finished", "killed", "killed, without its shared memory", "running"])
def test_a_run_is_read_on_a_read_only_file_system(log, mount, tmp_path):
    path = tmp_path / "run"
    writer = None
    if log == "finished":
        recorded(path, rounds=5)
    elif log == "running":
        writer = RunDirectory(path, durable=False)
        writer.write_config(CONFIG)
        for number in range(1, 6):
            writer.record("round", row(number))
    else:
        code = RECORD_FOR_EVER.replace("itertools.count(first)", "range(1, 6)") + "\nimport os; os.kill(os.getpid(), 9)"
        process = python(code, path)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert (path / "run.sqlite-wal").stat().st_size > 0
        if "without" in log:
            (path / "run.sqlite-shm").unlink()
    seen = read_only(mount, path)
    rows = read_rounds(seen)
    assert [found["round"] for found in rows] == [1, 2, 3, 4, 5]
    assert open_run(seen).info.state == log.split(",")[0]
    if writer is not None:
        writer.close()


def test_an_older_run_is_read_on_a_read_only_file_system(mount, tmp_path):
    check_imported(read_only(mount, old_directory(tmp_path / "run")))


def test_a_read_only_run_directory_cannot_be_resumed_and_says_so(mount, tmp_path):
    seen = read_only(mount, recorded(tmp_path / "run"))
    with pytest.raises(ConfigError, match=rf"cannot write to run directory {seen}: Read-only file system"):
        RunDirectory(seen)


def test_records_that_a_full_disk_does_not_take_are_written_when_there_is_room_again(mount, caplog):
    disk = mount("disk", "-t", "tmpfs", "-o", "size=600k", "none")
    with RunDirectory(disk / "run") as folder:
        folder.write_config(CONFIG)
        for number in range(1, 5):
            folder.record("round", row(number))
        ballast = disk / "ballast"
        fill(ballast)
        for number in range(5, 200):  # a training goes on; its own files are the journal's business
            folder.record("round", row(number))
        assert 4 <= len(read_rounds(disk / "run")) < 199
        ballast.unlink()
        folder.record("round", row(200))
        assert plain(read_rounds(disk / "run")) == [row(number) for number in range(1, 201)]
    (told,) = [record.message for record in caplog.records if "cannot record" in record.message]
    assert "database or disk is full; the run goes on, the disk is full: free some space" in told
    (failed,) = open_run(disk / "run").events(kinds=["recording-failed"])
    assert failed["failures"] == failed["written_later"] - 1 > 0
    assert failed["sequence"] == 201


def test_a_simulation_stops_at_once_when_the_disk_does_not_take_its_record(mount):
    from thinwire.errors import RoundError

    disk = mount("disk", "-t", "tmpfs", "-o", "size=600k", "none")

    def train():
        with RunDirectory(disk / "run", durable=False) as folder:
            folder.write_config(CONFIG)
            fill(disk / "ballast")
            for number in range(1, 300):
                folder.record("round", row(number))

    with pytest.raises(RoundError, match=r"cannot record in .*run\.sqlite: .*full: free some space and run it again"):
        train()
    rows = read_rounds(disk / "run")
    assert plain(rows) == [row(number) for number in range(1, len(rows) + 1)]


def test_a_run_cannot_begin_on_a_full_disk_and_says_so(mount):
    disk = mount("disk", "-t", "tmpfs", "-o", "size=200k", "none")
    fill(disk / "ballast")
    shutil.rmtree(disk / "run", ignore_errors=True)
    with RunDirectory(disk) as folder, pytest.raises(ConfigError, match=r"cannot write .*full: free some space"):
        folder.write_config(CONFIG)


def fill(path: Path) -> None:
    """Take all room that is left."""
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return
