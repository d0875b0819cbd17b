"""``thinwire runs``: what a folder of runs says, side by side and taken out, and how it is cleared up."""

import csv
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from store_kit import CONFIG, ROSTER, python, row

import thinwire.flower

# isort: split
from server.run_directory import RunDirectory
from server.run_store import open_run
from server.run_store_schema import VERSION
from thinwire.cli import main
from thinwire.cli.run_pruning import age
from thinwire.errors import ConfigError


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Thinwire = Callable[..., Ended]


@pytest.fixture
def thinwire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Thinwire:
    """The command line, in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["thinwire", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Ended(stop.value.code, out, err)

    return run


def recorded(
    name: str,
    rounds: int = 8,
    state: str = "finished",
    uplink: str = "top-k",
    better: float = 0.0,
    age_seconds: float = 0.0,
) -> Path:
    """A run directory runs/NAME; with an age it was recorded so long ago."""
    path = Path("runs") / name
    with pytest.MonkeyPatch.context() as patch:
        now = time.time
        patch.setattr("server.run_store_writer.time.time", lambda: now() - age_seconds)
        with RunDirectory(path, durable=False) as folder:
            folder.write_config({**CONFIG, "uplink": {"name": uplink}})
            folder.record("roster", ROSTER)
            for number in range(1, rounds + 1):
                given = row(number)
                if "accuracy" in given:
                    given["accuracy"] += better
                folder.record("round", given)
            if state != "killed":
                folder.end(state, "" if state == "finished" else "the reason why")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def names(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.err
    return [run["name"] for run in json.loads(ended.out)]


def plain(text: str) -> str:
    """Without the codes of colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def there() -> list[str]:
    return sorted(path.name for path in Path("runs").iterdir())


# -- list and show ------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_what_became_of_them(thinwire: Thinwire) -> None:
    for place, state in enumerate(("finished", "stopped", "failed", "killed")):
        recorded(f"r{place}", state=state, age_seconds=100 - place)
    with RunDirectory(Path("runs/now"), durable=False) as running:
        running.write_config(CONFIG)
        found = json.loads(thinwire("runs", "list", "--json").out)
        table = thinwire("runs", "list").out
    states = {run["name"]: run["state"] for run in found}
    assert states == {"now": "running", "r3": "killed", "r2": "failed", "r1": "stopped", "r0": "finished"}
    assert [run["name"] for run in found] == ["now", "r3", "r2", "r1", "r0"]  # the newest first
    last = found[-1]
    assert (last["method"], last["uplink"], last["downlink"], last["task"]) == ("ef21", "top-k", "natural", "digits")
    assert (last["rounds"], last["planned_rounds"], last["clients"]) == (8, 8, 3)
    assert (last["uplink_bytes"], last["downlink_bytes"], last["accuracy"]) == (8 * 200, 8 * 140, 1 - 1 / 9)
    assert last["size_bytes"] >= os.path.getsize("runs/r0/run.sqlite")
    line = next(line for line in table.splitlines() if line.startswith("r0"))
    assert line.split()[:8] == ["r0", "finished", "ef21", "top-k", "natural", "digits", "8/8", "88.89"]


def test_a_narrow_terminal_has_fewer_columns_and_cuts_none(thinwire: Thinwire, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded("20260102-093000-ef21")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal then
    monkeypatch.setenv("COLUMNS", "80")
    listed, shown = thinwire("runs", "list").out, thinwire("runs", "show").out
    assert max(map(len, plain(listed).splitlines())) <= 80
    assert all(word in plain(listed) for word in ("20260102-093000-ef21", "finished", "8/8", "88.89 %"))
    heads = next(line for line in plain(shown).splitlines() if line.startswith("client "))
    assert "weight" not in heads
    assert "last seen" in heads
    assert any(line.startswith("hospital-0 ") for line in plain(shown).splitlines())
    assert "…" not in listed + shown


def test_a_list_of_runs_loads_no_torch(thinwire: Thinwire) -> None:
    recorded("one")
    code = "import sys, thinwire.cli as c; sys.argv = ['thinwire', 'runs', 'list']\n"
    code += "try: c.main()\nfinally: print('torch' in sys.modules)"
    out, err = python(code).communicate()
    assert "one" in out, err
    assert out.splitlines()[-1] == "False"


def test_a_list_is_cut_to_states_and_to_the_newest(thinwire: Thinwire) -> None:
    for place, state in enumerate(("finished", "failed", "finished")):
        recorded(f"r{place}", state=state, age_seconds=10 - place)
    assert names(thinwire("runs", "list", "--json", "--state", "finished")) == ["r2", "r0"]
    assert names(thinwire("runs", "list", "--json", "--limit", "2")) == ["r2", "r1"]
    assert "--state lost is unknown; choose among running, finished" in thinwire("runs", "list", "--state", "lost").err


def test_a_yardstick_inside_a_run_is_listed_with_its_path(thinwire: Thinwire) -> None:
    recorded("a/fedavg", age_seconds=5)
    recorded("a")
    assert names(thinwire("runs", "list", "--json")) == ["a", "a/fedavg"]


def test_a_run_of_a_newer_version_is_listed_as_unreadable_and_hides_no_other(thinwire: Thinwire) -> None:
    recorded("old")
    newer(recorded("new"))
    ended = thinwire("runs", "list")
    assert ended.code == 0
    assert "unreadable" in ended.out
    assert "finished" in ended.out
    assert f"has schema version {VERSION + 1}" in ended.err
    shown = thinwire("runs", "show", "new")
    assert shown.code == 2
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert f"has schema version {VERSION + 1} and this Thinwire knows versions up to {VERSION}" in line


def newer(path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path / "run.sqlite")) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def test_a_folder_that_is_not_there_is_told(thinwire: Thinwire) -> None:
    assert thinwire("runs", "list").err == (
        "error: there is no folder runs; name the folder of the run directories with --root\n"
    )
    Path("empty").mkdir()
    assert thinwire("runs", "list", "--root", "empty").out == "no runs in empty\n"


def test_a_run_is_shown_by_its_name_or_its_path(thinwire: Thinwire) -> None:
    path = recorded("r0", state="failed")
    by_name, by_path = thinwire("runs", "show", "r0", "--json"), thinwire("runs", "show", path.absolute(), "--json")
    found, same = json.loads(by_name.out), json.loads(by_path.out)
    assert {**found, "run_dir": ""} == {**same, "run_dir": ""}
    assert (found["state"], found["reason"], found["run"]) == ("failed", "the reason why", ROSTER["run"])
    assert found["config"]["uplink"] == {"name": "top-k"}
    assert found["totals"]["uplink_bytes"] == 1600
    assert [client["name"] for client in found["clients"]] == ["hospital-0", "hospital-1", "hospital-2"]
    assert [event["event"] for event in found["events"]] == ["roster"]
    table = thinwire("runs", "show", "r0").out
    for text in ("failed: the reason why", "ef21: top-k up, natural down", "8 of 8", "hospital-2", "uplink.name"):
        assert text in table


def test_an_unknown_run_names_the_nearest(thinwire: Thinwire) -> None:
    recorded("morning")
    ended = thinwire("runs", "show", "mornin")
    assert ended.code == 2
    assert "'mornin' is neither a run directory nor the name of a run in runs; did you mean 'morning'?" in ended.err


def test_what_a_peer_had_a_say_in_is_shown_as_it_is(thinwire: Thinwire) -> None:
    with RunDirectory(Path("runs/r0"), durable=False) as folder:
        folder.write_config(CONFIG)
        folder.record("roster", {"clients": [{"name": "[/bold]", "weight": 1.0, "examples": 1}]})
        folder.record("hostile", {"client": "[/bold]", "detail": "[red]nonsense[/blue]"})
    ended = thinwire("runs", "show", "r0")
    assert ended.code == 0, ended.err
    assert "client [/bold], detail [red]nonsense[/blue]" in ended.out


# -- compare ------------------------------------------------------------------------------------------------------


def test_runs_are_compared_at_the_best_accuracy_that_all_reached(thinwire: Thinwire) -> None:
    recorded("slow", rounds=8)
    recorded("fast", rounds=8, uplink="sign", better=0.05)
    found = json.loads(thinwire("runs", "compare", "slow", "fast", "--json").out)
    assert found["goals"] == {"accuracy": 1 - 1 / 9}
    assert found["differing"] == ["uplink.name"]
    slow, fast = found["runs"]
    assert slow["reached"]["accuracy"] == {"round": 8, "seconds": 2.0, "uplink_bytes": 1600, "total_bytes": 8 * 340}
    assert fast["reached"]["accuracy"]["round"] == 6  # 1 - 1/7 + 0.05
    assert (slow["accuracy"], fast["config"]) == (1 - 1 / 9, {"uplink.name": "sign"})
    table = thinwire("runs", "compare", "slow", "fast").out
    for text in ("to accuracy 88.89 %", "configured differently", "uplink.name", "sign", "1.60 kB"):
        assert text in table


def test_a_goal_that_a_run_did_not_reach_is_said(thinwire: Thinwire) -> None:
    recorded("slow", rounds=2)
    recorded("fast", rounds=8)
    arguments = ("runs", "compare", "slow", "fast", "--target", "accuracy=0.85")
    slow, fast = json.loads(thinwire(*arguments, "--json").out)["runs"]
    assert slow["reached"] == {"accuracy": None}
    assert fast["reached"]["accuracy"]["round"] == 6
    assert "not reached" in thinwire(*arguments).out


def test_simulated_seconds_are_compared_where_there_are_any(thinwire: Thinwire) -> None:
    for name in ("a", "b"):
        with RunDirectory(Path("runs") / name, durable=False) as folder:
            folder.write_config(CONFIG)
            for number in (1, 2):
                folder.record("round", {**row(number), "loss": 1.0 / number, "simulated_seconds": 60.0})
    found = json.loads(thinwire("runs", "compare", "a", "b", "--json").out)
    assert found["goals"] == {"loss": 0.5}
    assert [run["reached"]["loss"]["simulated_seconds"] for run in found["runs"]] == [120.0, 120.0]
    assert "2 min 00 s" in thinwire("runs", "compare", "a", "b").out


def test_one_run_cannot_be_compared(thinwire: Thinwire) -> None:
    recorded("a")
    assert "give two runs or more" in thinwire("runs", "compare", "a").err


# -- export -------------------------------------------------------------------------------------------------------


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_rounds_are_exported_as_a_table(thinwire: Thinwire) -> None:
    recorded("a", rounds=3)
    rows = table(thinwire("runs", "export", "a").out)
    assert [found["round"] for found in rows] == ["1", "2", "3"]
    assert rows[1]["accuracy"] == str(1 - 1 / 3)
    assert (rows[0]["accuracy"], rows[0]["asked"], rows[0]["uplink_bytes"]) == ("", "2", "200")
    assert rows[2]["train.loss"] == str(2.5 / 3)


def test_rounds_are_exported_as_json_just_as_they_were_recorded(thinwire: Thinwire) -> None:
    recorded("a", rounds=3)
    as_json = json.loads(thinwire("runs", "export", "a", "--json").out)
    lines = [json.loads(line) for line in thinwire("runs", "export", "a", "--format", "jsonl").out.splitlines()]
    assert as_json == lines == open_run(Path("runs/a")).rounds()


def test_clients_and_their_rounds_and_events_are_exported(thinwire: Thinwire) -> None:
    recorded("a", rounds=3)
    clients = table(thinwire("runs", "export", "a", "--what", "clients").out)
    assert [(client["name"], client["uplink_bytes"]) for client in clients] == [
        ("hospital-0", "300"),
        ("hospital-1", "0"),
        ("hospital-2", "300"),
    ]
    parts = table(thinwire("runs", "export", "a", "--what", "client-rounds").out)
    assert [(part["round"], part["name"]) for part in parts[:3]] == [
        ("1", "hospital-0"),
        ("1", "hospital-2"),
        ("2", "hospital-0"),
    ]
    assert (parts[1]["seconds"], parts[1]["asked"], parts[1]["downlink_bytes"]) == ("2.125", "True", "70")
    (event,) = table(thinwire("runs", "export", "a", "--what", "events").out)
    assert (event["sequence"], event["event"]) == ("1", "roster")
    assert json.loads(event["fields"])["run"] == ROSTER["run"]


def test_a_file_is_written_in_the_format_that_its_name_says(thinwire: Thinwire) -> None:
    recorded("a", rounds=3)
    told = json.loads(thinwire("runs", "export", "a", "--out", "a.jsonl", "--json").out)
    assert told == {"file": "a.jsonl", "what": "rounds", "format": "jsonl", "records": 3}
    assert len(Path("a.jsonl").read_text().splitlines()) == 3
    assert thinwire("runs", "export", "a", "--out", "a.txt").out == "a.txt: 3 rounds\n"
    assert len(table(Path("a.txt").read_text())) == 3


def test_parquet_has_the_columns_of_the_table(thinwire: Thinwire) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    recorded("a", rounds=3)
    assert thinwire("runs", "export", "a", "--out", "a.parquet").code == 0
    found = parquet.read_table("a.parquet").to_pylist()
    assert [one["accuracy"] for one in found] == [None, 1 - 1 / 3, None]
    assert [one["train.loss"] for one in found] == [2.5, 1.25, 2.5 / 3]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "xml"), "--format xml is unknown; choose one of csv, json, jsonl, parquet"),
        (("--what", "models"), "--what models is unknown; choose one of rounds, clients, client-rounds, events"),
        (("--format", "parquet"), "parquet is no text: name a file with --out"),
        (("--out", "absent/a.csv"), "cannot write absent/a.csv: No such file or directory"),
    ],
)
def test_a_mistake_in_an_export_is_one_line(arguments: Sequence[str], told: str, thinwire: Thinwire) -> None:
    recorded("a", rounds=1)
    ended = thinwire("runs", "export", "a", *arguments)
    assert (ended.code, ended.err) == (2, f"error: {told}\n")


# -- prune --------------------------------------------------------------------------------------------------------


def test_pruning_keeps_the_newest(thinwire: Thinwire) -> None:
    for place in range(4):
        recorded(f"r{place}", age_seconds=100 - place)
    dry = json.loads(thinwire("runs", "prune", "--keep", "2", "--dry-run", "--json").out)
    assert [run["name"] for run in dry["runs"]] == ["r1", "r0"]
    assert there() == ["r0", "r1", "r2", "r3"]
    ended = thinwire("runs", "prune", "--keep", "2", "--yes")
    assert ended.code == 0
    assert "2 runs" in ended.out
    assert there() == ["r2", "r3"]


def test_pruning_takes_what_is_old_and_in_a_state(thinwire: Thinwire) -> None:
    for name, state, days in (("old", "finished", 40), ("young", "failed", 3), ("older", "failed", 90)):
        recorded(name, state=state, age_seconds=86400 * days)
    recorded("newest")
    arguments = ("runs", "prune", "--older-than", "30d", "--state", "failed", "--yes", "--json")
    (gone,) = json.loads(thinwire(*arguments).out)["runs"]
    assert gone["run_dir"] == "runs/older"
    assert gone["freed_bytes"] > 0
    assert there() == ["newest", "old", "young"]


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("12h", 43200), ("30d", 2592000), ("1.5w", 907200)])
def test_an_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert age(text) == seconds


def test_an_age_without_a_unit_is_told() -> None:
    with pytest.raises(ConfigError, match="--older-than 30: write a number and s, m, h, d or w, for example 30d"):
        age("30")


def test_a_run_that_is_running_is_never_pruned(thinwire: Thinwire) -> None:
    recorded("done")
    code = """
import signal
from pathlib import Path
from server import run_lock
from server.run_store_writer import RunWriter
from store_kit import CONFIG, row
path = Path("runs/live")
path.mkdir()
lock = run_lock.take(path)
writer = RunWriter(path)
writer.begin(CONFIG)
writer.record("round", row(1))
print("ready", flush=True)
signal.pause()
"""
    with python(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert thinwire("runs", "prune", "--keep", "0", "--yes").code == 0
        assert there() == ["live"]
        process.send_signal(signal.SIGKILL)
    assert names(thinwire("runs", "list", "--json", "--state", "killed")) == ["live"]
    assert thinwire("runs", "prune", "--keep", "0", "--yes").code == 0
    assert there() == []


def test_a_finished_run_that_somebody_holds_is_not_pruned(thinwire: Thinwire) -> None:
    held = RunDirectory(recorded("a"))
    try:
        ended = thinwire("runs", "prune", "--keep", "0", "--yes")
        assert ended.code == 2
        assert "1 of 1 runs could not be deleted: run directory runs/a is in use by another server" in ended.err
    finally:
        held.close()
    assert open_run(Path("runs/a")).info.state == "finished"


def test_files_of_others_stay_and_are_named(thinwire: Thinwire) -> None:
    path = recorded("a")
    recorded("a/fedavg")
    (path / "notes.txt").write_text("mine")
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "round-00000001.json").write_text("{}")
    (path / "papers").mkdir()
    ended = thinwire("runs", "prune", "--keep", "0", "--yes")
    assert "runs/a stays with what Thinwire did not write: notes.txt, papers/" in ended.out
    assert sorted(file.name for file in path.iterdir()) == ["notes.txt", "papers"]


def test_a_link_out_of_a_run_is_not_followed(thinwire: Thinwire, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "run.toml").write_text("x")
    (recorded("a") / "checkpoints").symlink_to(outside)
    assert thinwire("runs", "prune", "--keep", "0", "--yes").code == 0
    assert (outside / "run.toml").exists()


def test_pruning_asks(thinwire: Thinwire, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded("a")
    for answer, left in (("n\n", ["a"]), ("", ["a"]), ("y\n", [])):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        thinwire("runs", "prune", "--keep", "0")
        assert there() == left


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "say which runs may go"),
        (("--state", "running"), "--state running cannot be pruned; choose among finished, stopped, failed, killed"),
        (("--keep", "-1"), "--keep -1 is below 0"),
        (("--keep", "1", "--json"), "--json cannot ask: add --yes, or --dry-run"),
    ],
)
def test_a_mistake_in_pruning_is_one_line(arguments: Sequence[str], told: str, thinwire: Thinwire) -> None:
    recorded("a")
    ended = thinwire("runs", "prune", *arguments)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert told in line
    assert there() == ["a"]


def test_events_are_thinned_out_and_rounds_stay(thinwire: Thinwire) -> None:
    path = recorded("a")
    with RunDirectory(path, durable=False) as folder:
        folder.write_config(CONFIG)
        for number in range(2_000):
            folder.record("fleet-opened", {"client": "hospital-1", "detail": "again " * 10, "number": number})
        folder.end("finished")
    size = (path / "run.sqlite").stat().st_size
    before = open_run(path)
    rounds, last = before.rounds(), before.events(limit=-5)
    told = json.loads(thinwire("runs", "prune", "--events", "5", "--yes", "--json").out)
    assert told == {"events_deleted": {"a": 1_996}}
    assert open_run(path).events() == last
    assert open_run(path).rounds() == rounds
    assert (path / "run.sqlite").stat().st_size < size / 3
    with RunDirectory(path, durable=False) as folder:
        assert folder.record("reset", {}) == last[-1]["sequence"] + 1
