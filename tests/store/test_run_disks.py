"""A record outlives kill -9, and is read and told of where the disk cannot be written."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_kit import CONFIG, RECORD_FOR_EVER, check_imported, old_directory, plain, python, recorded, row

from server.run_directory import RunDirectory
from server.run_store import open_run, read_rounds
from server.run_store_schema import NAME
from thinwire.errors import ConfigError

# -- kill -9 ------------------------------------------------------------------------------------------------------


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
