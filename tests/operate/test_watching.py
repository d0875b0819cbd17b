"""Watching and asking: runs that are over are read from their record; what cannot be is said in a line."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operate_support import shell
from rich.console import Console

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from server.run_directory import RunDirectory
from server.run_store import open_run
from thinwire.cli.commanding import clients_table
from thinwire.cli.run_view import RunView, of_message, told
from thinwire.cli.standing import dense_of, standing, stored_fields, table
from thinwire.cli.watch_page import Page, sparkline
from thinwire.cli.watching import Watched, follow
from thinwire.cli.whereabouts import Whereabouts, newest, run_directories
from thinwire.config import to_options
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig
from thinwire.v1.operator_pb2 import Event

ROUNDS = 12


def row(number: int) -> dict[str, Any]:
    """A round of two clients, the second twice as slow."""
    return {
        "round": number,
        "attempt": 0,
        "seconds": 0.5,
        "uplink_bytes": 3_000,
        "downlink_bytes": 6_000,
        "dense_bytes": 600_000,
        "asked": [0, 1],
        "replied": [0, 1],
        "client_bytes": {"0": [1_000, 3_000], "1": [2_000, 3_000]},
        "client_seconds": {"0": 0.5, "1": 1.0},
        "train": {},
        "loss": 1 / number,
        "accuracy": 1 - 1 / (number + 1),
    }


def write_run(path: Path, state: str = "finished") -> Path:
    """A recorded run: its server is gone."""
    with RunDirectory(path) as folder:
        folder.write_config(to_options(RunConfig.of({"rounds": ROUNDS, "clients": 2})))
        folder.record(
            "roster", {"run": "ab" * 16, "clients": [{"name": n, "weight": 0.5, "examples": 9} for n in "ab"]}
        )
        for number in range(1, ROUNDS + 1):
            folder.record("round", row(number))
        folder.record("paused", {"by": "olga", "round": ROUNDS})
        if state != "killed":
            folder.end(state, "")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "one")


def at(folder: Path | None, address: str | None = None) -> Whereabouts:
    return Whereabouts.of(folder, address, None, None, None)


def test_the_status_of_a_run_that_is_over_is_its_records(run: Path) -> None:
    found = standing(at(run))
    assert (found["source"], found["state"], found["round"], found["rounds"]) == ("record", "finished", ROUNDS, ROUNDS)
    assert (found["method"], found["uplink"], found["task"]) == ("ef21", "top-k", "digits")
    assert found["uplink_bytes"] == 3_000 * ROUNDS
    assert found["metrics"] == {"accuracy": pytest.approx(1 - 1 / 13), "loss": pytest.approx(1 / 12)}
    text = drawn(table(found))
    assert "12 of 12, 6.0 s" in text
    assert "36.00 kB, 100.0 x fewer than dense" in text


@pytest.mark.parametrize(
    ("state", "hint"), [("killed", "its server is gone; thinwire server --resume"), ("stopped", "goes on")]
)
def test_a_run_that_can_go_on_says_how(tmp_path: Path, state: str, hint: str) -> None:
    found = standing(at(write_run(tmp_path / "run", state)))
    assert found["state"] == state
    assert hint in drawn(table(found))
    with pytest.raises(ConfigError, match=f"the run is {state}; go on with thinwire server --resume"):
        at(tmp_path / "run").operator()


def test_events_of_a_run_that_is_over_are_told_once_and_in_order(run: Path) -> None:
    events = list(follow(at(run), 0))
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences))
    assert [event["round"] for event in events if event["event"] == "round"] == list(range(1, ROUNDS + 1))
    assert list(follow(at(run), sequences[-2])) == events[-1:]
    assert list(follow(at(run), -3)) == events[-3:]


def test_in_a_pipe_a_run_is_lines_and_with_json_objects(run: Path) -> None:
    with shell(run.parents[1]) as sh:
        plain, listed = sh.start("watch", "--after", "0"), sh.start("watch", "runs/one", "--json")
        assert (plain.ended(), listed.ended()) == (0, 0)
    assert plain.out[1][9:] == "round 1: 2 of 2 clients, loss 1.0000, accuracy 0.5000, up 3.00 kB, down 6.00 kB"
    assert plain.out[-1][9:] == "paused (by olga, round 12)"
    assert len(plain.out) == len(listed.out)
    assert [json.loads(line)["event"] for line in listed.out].count("round") == ROUNDS


# -- the picture -------------------------------------------------------------------------------------------------


def drawn(what: Any, width: int = 100, height: int = 30) -> str:
    console = Console(width=width, height=height, file=io.StringIO())
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.fixture
def view(run: Path) -> Iterator[RunView]:
    watched = Watched(at(run))
    yield watched.look()
    assert watched.over
    watched.close()


def test_the_picture_shows_the_run(view: RunView) -> None:
    text = drawn(Page(view))
    assert text.startswith("finished  ef21 on digits, top-k up, top-k down  ababababab")
    assert "12 of 12" in text
    assert "100.0 x fewer than dense" in text
    assert "paused (by olga, round 12)" in text
    slow, fast = (line for line in text.splitlines() if line.startswith(("a ", "b ")))
    assert slow.split()[0] == "b"  # the slowest first
    assert "5.00 kB/s" in slow
    assert "8.00 kB/s" in fast


@pytest.mark.parametrize("size", [(40, 10), (66, 18), (80, 24), (200, 60)])
def test_the_picture_fits_the_window(view: RunView, size: tuple[int, int]) -> None:
    width, height = size
    view.clients = [{**view.clients[0], "index": index, "name": f"a-client-of-{index}"} for index in range(50)]
    for _ in range(60):
        view.add_event({"event": "hostile", "client": "x" * 300, "detail": "long " * 50, "time": 1.0})
    lines = drawn(Page(view), width, height).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 22)


@pytest.mark.parametrize("width", [40, 52, 60, 76, 98])
def test_a_narrow_table_of_clients_has_fewer_columns_and_cuts_none(view: RunView, width: int) -> None:
    view.clients = [{**client, "state": "connected", "mean_seconds": 12.34} for client in view.clients]
    lines = drawn(Page(view), width, 24).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("slowest clients"))
    assert not [line for line in lines[place : place + 3] if "…" in line]
    assert all("12.34" in line for line in lines[place + 1 : place + 3])


@pytest.mark.parametrize("width", [56, 80, 100])
def test_a_narrow_window_keeps_the_bar_and_what_is_left(view: RunView, width: int) -> None:
    view.status |= {"state": "running", "round": 500_000, "rounds": 1_000_000, "seconds": 108.0}
    for place, one in enumerate(view.rows):
        one["time"] = 100 + 0.05 * place  # 1200.0 a minute
    line = next(line for line in drawn(Page(view), width, 24).splitlines() if line.startswith("rounds"))
    assert line.split()[1].strip("━╸╺") == ""
    assert line.rstrip().endswith(" left")
    view.status |= {"state": "killed"}
    assert " left" not in drawn(Page(view), width, 24)  # nobody knows when


def test_rounds_that_are_decided_again_take_the_place_of_the_first(view: RunView) -> None:
    told(view, [{**row(11), "event": "round", "sequence": 90}, {**row(12), "event": "round", "sequence": 91}])
    assert [line["round"] for line in view.rows] == list(range(1, ROUNDS + 1))
    assert view.history("loss") == [pytest.approx(1 / number) for number in range(1, ROUNDS + 1)]


def test_a_message_of_the_control_service_reads_as_the_record_does(view: RunView) -> None:
    event = Event(sequence=7, time=5.0, kind="banned", client="ann", round=3, fields='{"by": "olga"}')
    expected = {"by": "olga", "client": "ann", "round": 3, "sequence": 7, "time": 5.0, "event": "banned"}
    assert of_message(event) == expected


def test_a_sparkline_is_as_wide_as_it_may_be() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([1.0, 1.0], 10) == "▁▁"
    assert sparkline([0.0, 1.0, 2.0, 3.0], 2) == "▁█"
    assert len(sparkline([float(value) for value in range(1_000)], 32)) == 32


ODD = "[/red] and [bold]x"  # what rich takes for its markup


def test_names_of_peers_and_folders_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "[" / "red]"
    with RunDirectory(path) as folder:
        folder.write_config(to_options(RunConfig.of({"rounds": ROUNDS, "clients": 2})))
        roster = [{"name": name, "weight": 0.5, "examples": 9} for name in (ODD, "b")]
        folder.record("roster", {"run": "ab" * 16, "clients": roster})
        folder.record("round", row(1))
        folder.record("client-error", {"client": ODD, "detail": ODD, "round": 1})
    found = {**standing(at(path)), "source": "server", "asked": [ODD], "metrics": {ODD: 1.0}}
    status = drawn(table(found), 300)
    assert f"waiting for {ODD}" in status
    assert str(path) in status
    assert any(line.startswith(ODD) for line in drawn(clients_table(open_run(path).clients()), 300).splitlines())
    watched = Watched(at(path))
    view = watched.look()
    watched.close()
    view.status = found
    picture = drawn(Page(view), 300, 40)
    assert f"waiting for {ODD}" in picture
    assert f"client error: client {ODD}: {ODD}" in picture
    assert sum(line.startswith(ODD) for line in picture.splitlines()) == 2  # the metric, and the client


def test_who_did_not_answer_has_saved_nothing(run: Path) -> None:
    with RunDirectory(run) as folder:
        folder.record("round", {**row(ROUNDS + 1), "replied": [0], "dense_bytes": 450_000})
    found = standing(at(run))
    up, down = 300_000 * ROUNDS + 150_000, 300_000 * (ROUNDS + 1)
    assert dense_of(found) == (up, down)
    assert f"{up / (3_000 * (ROUNDS + 1)):.1f} x fewer" in drawn(table(found))


# -- where a run is ----------------------------------------------------------------------------------------------


def test_of_a_server_that_would_not_listen_the_record_is_shown_and_why_is_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory(run) as folder:
        folder.write_config(to_options(RunConfig.of({"rounds": ROUNDS, "clients": 2})))
        control = run / "control.json"
        control.write_text(json.dumps({"address": "127.0.0.1:1", "pid": 1, "tls": True, "run": "ab" * 16}))
        assert standing(at(run))["source"] == "record"
        said = capsys.readouterr().err
        assert said.startswith(f"the server of {run} wants an operator's certificate")
        assert said.endswith(": this is its record\n")
        watched = Watched(at(run))
        assert "wants an operator's certificate" in drawn(Page(watched.look()), 200)
        assert capsys.readouterr().err == ""  # not at every look
        watched.close()
        control.unlink()
    assert standing(at(run))["state"] == "killed"
    assert capsys.readouterr().err == ""


def test_while_a_killed_server_is_started_anew_nobody_is_sent_to_where_it_listened(run: Path) -> None:
    (run / "control.json").write_text(json.dumps({"address": "127.0.0.1:1", "pid": 1, "tls": False, "run": "ab" * 16}))
    with RunDirectory(run) as folder:
        folder.write_config(to_options(RunConfig.of({"rounds": ROUNDS, "clients": 2})))
        found = standing(at(run))
        assert (found["source"], found["state"]) == ("record", "running")


def test_the_newest_run_is_taken_and_offered(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    write_run(Path("runs/two"))
    assert newest() == Path("runs/two")
    assert run_directories("") == ["runs/one", "runs/two"]
    assert run_directories("runs/o") == ["runs/one"]


def test_without_a_run_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="there is no run below runs/; give a run directory, or --address"):
        at(None)
    with pytest.raises(ConfigError, match="there is no run directory runs/none"):
        at(Path("runs/none")).operator()
    (tmp_path / "empty").mkdir()
    for ask in (lambda: standing(at(Path("empty"))), lambda: list(follow(at(Path("empty")), 0))):
        with pytest.raises(ConfigError, match="empty holds no run"):
            ask()


def test_a_server_that_does_not_answer_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no answer from the control service at 127\.0\.0\.1:1"):
        standing(at(None, "127.0.0.1:1"))
    with pytest.raises(ConfigError, match="no answer from the control service"):
        list(follow(at(None, "127.0.0.1:1"), 0))


def test_a_run_before_its_first_round_has_a_status(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as folder:
        folder.write_config(to_options(RunConfig.of({"rounds": ROUNDS})))
    assert stored_fields(open_run(tmp_path))["round"] == 0
