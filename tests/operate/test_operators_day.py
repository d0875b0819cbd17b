"""The operator's day of docs/operate.md: server and three clients, watched, paused, one banned; the server is killed
and resumed, the run ends, is compared with another, and its report is opened. All of it as real processes.
"""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from operate_support import HAS_TMUX, Process, Shell, free_port, shell, terminal, wait_for

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from server.run_store import open_run

CLIENTS = ("client-0", "client-1", "client-2")


def rounds_of(process: Process) -> list[int]:
    events = [json.loads(line) for line in list(process.out)]
    return [event["round"] for event in events if event["event"] == "round"]


def wait_for_rounds(watching: Process, count: int) -> None:
    """So many rounds more than the watcher has seen until now."""
    target = len(rounds_of(watching)) + count
    wait_for(lambda: len(rounds_of(watching)) >= target, watching.story)


def status(sh: Shell) -> Any:
    return sh.json("status", "runs/first")


def test_an_operators_day(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with shell(tmp_path) as home:
        assert "next: cd moons" in home.text("init", "--app", "moons")
    with shell(tmp_path / "moons") as sh:
        # a server and three clients; meanwhile the run that it will be compared with
        serve = ("server", "-c", "run.toml", "--clients", "3", "--rounds", "100000", "--address", address)
        server = sh.start(*serve, "--out", "runs/first")
        taking_part = [
            sh.start("client", "-c", "client.toml", "--server", address, "--name", n, "--state", "state")
            for n in CLIENTS
        ]
        second = sh.start(
            "simulate", "-c", "run.toml", "--rounds", "20", "--no-baseline", "--out", "runs/second", "--json"
        )
        server.told("listening on")
        wait_for(lambda: (tmp_path / "moons/runs/first/control.json").exists(), server.story)

        # it is watched, in a pipe and on a terminal
        watching = sh.start("watch", "runs/first", "--json")
        wait_for_rounds(watching, 2)
        if HAS_TMUX:
            watch_on_a_terminal(sh)

        # it is paused, and goes on
        assert "held" in sh.text("pause", "runs/first")
        held = wait_for(lambda: (found := status(sh))["state"] == "paused" and found, "pause")
        assert rounds_of(watching)[-1] == held["round"]
        assert "goes on with round" in sh.text("resume", "runs/first")
        wait_for_rounds(watching, 2)

        # a client is banned: it learns why, and the run goes on without it
        sh.run("clients", "ban", "client-2", "--run", "runs/first", "--reason", "its disk is broken", "--yes")
        assert taking_part[2].ended() == 2
        assert taking_part[2].err[-1].endswith("its disk is broken")
        states = {one["name"]: one["state"] for one in sh.json("clients", "list", "runs/first")}
        assert states["client-2"] == "banned"
        wait_for_rounds(watching, 2)

        # the server is killed, and resumed: nothing is lost, and whoever watched goes on watching
        server.send(signal.SIGKILL)
        server.ended()
        killed = status(sh)
        assert killed["state"] == "killed"
        forget_the_last_round(tmp_path / "moons/runs/first")
        assert "go on with thinwire server --resume runs/first" in sh.run("pause", "runs/first", code=2).err[-1]
        server = sh.start("server", "--resume", "runs/first", "--address", address, "--json")
        server.told("resumed")
        wait_for_rounds(watching, 2)
        assert rounds_of(watching)[-1] > killed["round"]

        # it has rounds enough: its end is set, and everybody goes home
        done = rounds_of(watching)[-1] + 80  # more than go by while the command is on its way
        sh.run("set", f"rounds={done}", "--run", "runs/first")
        watching.hears(lambda line: f'"rounds": [100000, {done}]' in line)
        assert server.ended() == 0, server.story()
        assert [client.ended() for client in taking_part[:2]] == [0, 0]
        assert watching.ended() == 0, watching.story()
        seen = rounds_of(watching)
        assert sorted(set(seen)) == list(range(1, done + 1))  # also the one decided as the server was killed
        outcome, record = json.loads(server.out[-1]), open_run(tmp_path / "moons/runs/first").totals()
        for name in ("rounds", "uplink_bytes", "downlink_bytes", "dense_bytes"):
            assert outcome[name] == record[name], name
        # the two runs are compared, and the report is opened
        assert second.ended() == 0, second.story()
        compared, reported = sh.start("runs", "compare", "runs/first", "runs/second"), sh.start("report", "runs/first")
        assert compared.ended() == 0, compared.story()
        assert {"first", "second"} <= set("\n".join(compared.out).split())
        assert reported.ended() == 0, reported.story()
        page = (tmp_path / "moons/runs/first/report.html").read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>")
        assert "its disk is broken" in page
        for process in sh.started:
            whole = process.story(lines=1000)
            assert "Traceback" not in whole, whole


def forget_the_last_round(run: Path) -> None:
    """As if the kill had come between the journal and the record."""
    with closing(sqlite3.connect(run / "run.sqlite")) as connection, connection:
        for table in ("client_rounds", "rounds"):
            connection.execute(f"DELETE FROM {table} WHERE round = (SELECT max(round) FROM rounds)")


def watch_on_a_terminal(sh: Shell) -> None:
    """The picture redraws cleanly when the window changes its size, and Ctrl-C leaves the run alone."""
    with terminal(sh.folder, "watch", "runs/first") as screen:
        screen.shows("running", "rounds", "accuracy", "fewer than dense", "slowest clients", "client-2", "B/s")
        screen.resize(70, 18)
        screen.shows("running", "slowest clients")
        wait_for(lambda: redrawn(screen.screen(), 70), screen.screen)
        screen.press("C-c")
        screen.shows("left; the run goes on")


def redrawn(picture: str, width: int) -> bool:
    """Everything once, and nothing wider than the window."""
    once = all(picture.count(words) == 1 for words in ("running", "rounds ", "slowest clients"))
    return once and max(map(len, picture.splitlines())) <= width
