"""Logs: for machines one JSON object a line with run, round and client; for people what they need; no spam."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from operate_support import shell

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from server.run_directory import RunDirectory
from thinwire.cli import logs
from thinwire.cli.run_log import RunLog, sentence
from thinwire.errors import ConfigError

KEYS = ["time", "level", "run", "round", "client", "event", "message"]
ROW = {"round": 3, "asked": [0, 1], "replied": [0], "uplink_bytes": 1500, "downlink_bytes": 20, "loss": 0.25}


Read = Callable[[], str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Read]:
    """Reads standard error; afterwards logs are as a command leaves them by default."""
    yield lambda: capsys.readouterr().err
    logs.set_up(False, "info")


def objects(written: Read) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written().splitlines()]


def test_every_line_says_what_it_is_about(written: Read) -> None:
    logs.set_up(True, "info")
    logs.bind(run="ab12")
    logs.say("a client is late", "late", logging.WARNING, client="ann", round=7, detail="slow")
    (line,) = objects(written)
    assert list(line) == [*KEYS, "fields"]
    assert line["time"].endswith("Z")
    told = {key: line[key] for key in KEYS[1:]}
    about = {"run": "ab12", "round": 7, "client": "ann"}
    assert told == {"level": "warning", **about, "event": "late", "message": "a client is late"}
    assert line["fields"] == {"detail": "slow"}


def test_what_is_not_finite_is_null_and_no_number_of_javascript(written: Read) -> None:
    logs.set_up(True, "info")
    RunLog("ab12").record("round", {**ROW, "loss": float("nan"), "train": {"loss": float("inf")}})
    (line,) = written().splitlines()
    fields = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["fields"]
    assert (fields["loss"], fields["train"]) == (None, {"loss": None})


def test_a_peers_text_is_one_line_and_does_nothing_to_a_terminal() -> None:
    said = sentence("client-error", {"client": "ann", "detail": "two\nlines, \x1b[31mred", "round": 3})
    assert said == "client error: client ann: two\\nlines, \\x1b[31mred (round 3)"


def test_whatever_is_written_to_standard_error_is_a_line_of_the_log(written: Read) -> None:
    logs.set_up(True, "info")
    sys.stderr.write("listening on ")
    sys.stderr.write("127.0.0.1:1\nerror: no such thing\n\nrest")
    logs.set_up(False, "info")
    sys.stderr.write("plain again\n")
    *lines, plain = written().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(line["level"], line["message"]) for line in found] == [
        ("info", "listening on 127.0.0.1:1"),
        ("error", "no such thing"),
        ("info", "rest"),
    ]
    assert plain == "plain again"


def test_other_peoples_libraries_speak_up_from_warnings_on(written: Read) -> None:
    for as_json in (False, True):
        logs.set_up(as_json, "info")
        for name in ("flwr", "ray", "grpc", "client.stream", "server.grids.door"):
            logging.getLogger(name).info("spam of %s", name)
            logging.getLogger(name).warning("trouble of %s", name)
    text = written()
    assert "spam" not in text
    assert text.count("trouble of") == 10
    assert "warning: trouble of flwr\n" in text


def test_an_error_with_a_traceback_is_one_line(written: Read) -> None:
    logs.set_up(True, "info")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("server").exception("it failed")
    (line,) = objects(written)
    assert line["message"] == "it failed"
    assert "ValueError: two\nlines" in line["traceback"]


@pytest.mark.parametrize(("level", "told"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels_leave_out_what_is_below_them(written: Read, level: str, told: int) -> None:
    logs.set_up(True, level)
    for name in logs.LEVELS:
        logs.say(name, level=logs.LEVELS[name])
    assert len(objects(written)) == told


def test_an_unknown_level_is_told() -> None:
    with pytest.raises(ConfigError, match="--log-level 'loud'; allowed: debug, info, warning, error"):
        logs.set_up(False, "loud")


def test_a_runs_record_is_in_the_log_and_a_huge_row_says_what_it_left_out(written: Read, tmp_path: Path) -> None:
    logs.set_up(True, "info")
    with RunDirectory(tmp_path / "run", durable=False) as folder:
        folder.observers.add(RunLog("ab12"))
        folder.record("round", {**ROW, "seconds": 1.0, "attempt": 0, "dense_bytes": 0, "client_bytes": {}, "train": {}})
        folder.record("hostile", {"client": "ann", "round": 4, "detail": "nonsense"})
        folder.record("huge", {"clients": ["x" * 100] * 1000, "small": 1})
    row, hostile, huge = (line for line in objects(written) if line["run"] == "ab12")
    assert (row["event"], row["round"], row["level"]) == ("round", 3, "info")
    assert row["message"] == "round 3: 1 of 2 clients, loss 0.2500, up 1.50 kB, down 20 B"
    assert (hostile["client"], hostile["round"], hostile["level"]) == ("ann", 4, "warning")
    assert huge["fields"]["left_out"] == ["clients"]
    assert huge["fields"]["small"] == 1
    assert len(json.dumps(huge)) < 1000


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("fleet-refused", {"client": "ann", "detail": "wrong token"}, "refused: client ann: wrong token"),
        ("banned", {"client": "ann", "by": "olga", "reason": "old"}, "banned: client ann (by olga, reason old)"),
        ("paused", {"by": "local", "round": 9}, "paused (by local, round 9)"),
        ("changed", {"by": "olga", "keys": {"rounds": [9, 12]}}, "changed: rounds 9 -> 12 (by olga)"),
        ("round-repeated", {"round": 4, "attempt": 0, "replies": 1}, "round repeated (round 4)"),
    ],
)
def test_events_are_told_in_words(kind: str, fields: dict[str, Any], words: str) -> None:
    assert sentence(kind, fields) == words


def test_a_simulation_logs_json_and_nothing_else(tmp_path: Path) -> None:
    with shell(tmp_path) as sh:
        small = ("--clients", "2", "--rounds", "2", "--set", "task.hidden=[4]", "--no-baseline")
        done = sh.run("simulate", *small, "--log-json", "--json", "--out", "run")
    found = [json.loads(line) for line in done.err]
    assert all(list(line)[: len(KEYS)] == KEYS for line in found)
    assert [line["round"] for line in found if line["event"] == "round"] == [1, 2]
    assert len({line["run"] for line in found if line["event"] == "round"}) == 1
    assert json.loads("\n".join(done.out))["rounds"] == 2
