"""A record of another version, or of another program, is imported or refused, and never spoilt."""

import sqlite3
from contextlib import closing

import pytest
from store_kit import CONFIG, check_imported, old_directory, plain, recorded, row

from server.run_directory import RunDirectory
from server.run_store import open_run, read_rounds
from server.run_store_schema import APPLICATION, NAME, VERSION
from server.run_store_writer import RunWriter
from thinwire.errors import ConfigError


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
