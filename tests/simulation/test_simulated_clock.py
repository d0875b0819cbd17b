"""Runs on simulated wires: the clock, the deadline and the absent, and the same bits for the same seed."""

from pathlib import Path
from typing import Any

import pytest

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from server.run_directory import read_rounds
from thinwire.cli.engines import InProcess
from thinwire.cli.report import comparison, duration
from thinwire.cli.simulation import dense_fedavg, simulate
from thinwire.errors import ConfigError, RoundError
from thinwire.run_config import RunConfig

OPTIONS: dict[str, Any] = {
    "clients": 20,
    "rounds": 4,
    "seed": 5,
    "participation": {"fraction": 0.5},
    "local": {"steps": 2},
    "evaluation": {"where": "none"},
    "task": {"name": "digits", "hidden": [16], "partition": "iid"},
    "method": "ef21",
    "uplink": {"name": "top-k", "fraction": 0.05},
    "downlink": "natural",
}
MIXTURE = {"speed": {"name": "classes"}}  # 1, 10 and 100 Mbit/s


def rows_of(options: dict[str, Any], path: Path, **more: Any) -> list[dict[str, Any]]:
    return read_rounds(simulate(RunConfig.of({**options, **more}), path).run_dir)


def model_of(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def test_a_round_takes_as_long_as_its_slowest_client(tmp_path: Path) -> None:
    speed = {"name": "constant", "up_mbits": 0.1, "down_mbits": 1, "latency_seconds": 0.5, "example_seconds": 0.01}
    rows = rows_of(OPTIONS, tmp_path / "run", simulation={"speed": speed}, local={"steps": 2, "batch": 8})
    for row in rows:
        sent = {client: pair for client, pair in row["client_bytes"].items() if int(client) in row["asked"]}
        # the welcome is not counted in a round; every client goes through 2 batches of 8 examples
        expected = max(2 * 0.5 + 8 * down / 1e6 + 8 * up / 1e5 + 16 * 0.01 for up, down in sent.values())
        assert row["simulated_seconds"] == pytest.approx(expected, abs=1e-5)  # recorded to a microsecond
        assert row["seconds"] != row["simulated_seconds"]


def test_compression_saves_simulated_time_and_the_table_shows_it_for_both(tmp_path: Path) -> None:
    options = {**OPTIONS, "clients": 100, "rounds": 10, "participation": {"fraction": 0.2}, "simulation": MIXTURE}
    options |= {"task": {"name": "digits", "hidden": [256], "partition": "iid"}, "evaluation": {"where": "server"}}
    options |= {"local": {"steps": 5, "rate": 0.3}}
    compressed = RunConfig.of({**options, "uplink": {"name": "top-k", "fraction": 0.1}, "downlink": "natural"})
    outcomes = {
        "compressed": simulate(compressed, tmp_path / "compressed"),
        "dense": simulate(dense_fedavg(compressed), tmp_path / "dense"),
    }
    reached = {}
    for name in outcomes:
        clock, reached[name] = 0.0, float("inf")
        for row in read_rounds(tmp_path / name):
            clock += row["simulated_seconds"]
            if row["accuracy"] >= 0.5:
                reached[name] = min(reached[name], clock)
    assert reached["compressed"] < reached["dense"] < float("inf")
    table = comparison({name: (outcome.totals, "") for name, outcome in outcomes.items()})
    titles = list(table.columns[0].cells)
    place = titles.index("time on the simulated links")
    shown = [list(column.cells)[place] for column in table.columns[1:]]
    assert shown == [duration(outcome.totals.simulated_seconds) for outcome in outcomes.values()]
    assert outcomes["dense"].as_json()["simulated_seconds"] > outcomes["compressed"].as_json()["simulated_seconds"]


def test_slow_clients_miss_the_deadline_and_are_absent(tmp_path: Path) -> None:
    speed = {"name": "classes", "up_mbits": [0.001, 10.0], "down_mbits": [10.0, 10.0]}
    rows = rows_of(OPTIONS, tmp_path / "run", simulation={"speed": speed}, round={"deadline_seconds": 2.5})
    for row in rows:
        assert 0 < len(row["replied"]) < len(row["asked"])
        assert row["simulated_seconds"] == pytest.approx(2.5)
    slow = set().union(*(set(row["asked"]) - set(row["replied"]) for row in rows))
    assert not slow & set().union(*(row["replied"] for row in rows)), "a slow wire was fast once"


def test_without_a_deadline_the_same_clients_are_waited_for(tmp_path: Path) -> None:
    speed = {"name": "classes", "up_mbits": [0.001, 10.0], "down_mbits": [10.0, 10.0]}
    rows = rows_of(OPTIONS, tmp_path / "run", simulation={"speed": speed}, round={"deadline_seconds": 600.0})
    assert all(row["replied"] == row["asked"] for row in rows)
    assert min(row["simulated_seconds"] for row in rows) > 2.5


def test_a_client_that_drops_out_is_given_up_after_the_patience_and_is_back_in_the_next_round(tmp_path: Path) -> None:
    simulation = {"availability": {"name": "drop-out", "probability": 0.4}}
    rows = rows_of(OPTIONS, tmp_path / "run", simulation=simulation, rounds=6, round={"patience_seconds": 20.0})
    lost = [set(row["asked"]) - set(row["replied"]) for row in rows]
    assert any(lost)
    for row, absent in zip(rows, lost, strict=True):
        assert (20.0 <= row["simulated_seconds"] < 25.0) == bool(absent)
    back = [gone & set(row["replied"]) for gone, row in zip(lost, rows[1:], strict=False)]
    assert any(back), "nobody who dropped out ever answered again"


def test_by_day_and_night_only_those_who_are_there_answer(tmp_path: Path) -> None:
    simulation = {"availability": {"name": "day-night", "share": 0.5}}
    rows = rows_of(OPTIONS, tmp_path / "run", simulation=simulation, round={"patience_seconds": 0.0})
    share = sum(len(row["replied"]) for row in rows) / sum(len(row["asked"]) for row in rows)
    assert 0.2 < share < 0.8


def test_a_trace_decides_who_answers(tmp_path: Path) -> None:
    lines = "".join(f"client-{index},0,{1e9 if index < 10 else 0.05}\n" for index in range(20))
    (tmp_path / "trace.csv").write_text("client,from,to\n" + lines)
    simulation = {"availability": {"name": "trace", "file": str(tmp_path / "trace.csv")}}
    rows = rows_of(OPTIONS, tmp_path / "run", simulation=simulation, round={"patience_seconds": 1.0})
    assert all(row["replied"] == [client for client in row["asked"] if client < 10] for row in rows[1:])


def test_a_night_without_anybody_ends_the_run_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("client,from,to\nclient-0,0,1\n")
    simulation = {"availability": {"name": "trace", "file": str(tmp_path / "trace.csv")}}
    options = {**OPTIONS, "simulation": simulation, "round": {"patience_seconds": 1.0, "retries": 1}}
    with pytest.raises(RoundError, match="in 2 attempts"):
        simulate(RunConfig.of(options), tmp_path / "run")


def test_the_same_seed_gives_the_same_bits_and_times_with_any_number_of_workers(tmp_path: Path) -> None:
    availability = {"name": "drop-out", "probability": 0.3}
    options = {**OPTIONS, "simulation": {"speed": {"name": "log-normal"}, "availability": availability}}
    config = RunConfig.of({**options, "round": {"patience_seconds": 5.0}})
    for name, workers in (("first", 1), ("second", 2)):
        simulate(config, tmp_path / name, engine=InProcess(workers))
    assert model_of(tmp_path / "first") == model_of(tmp_path / "second")
    kept = ("simulated_seconds", "replied", "client_bytes", "client_seconds")
    first, second = ([{k: r[k] for k in kept} for r in read_rounds(tmp_path / n)] for n in ("first", "second"))
    assert first == second
    assert any(len(row["replied"]) < len(row["asked"]) for row in read_rounds(tmp_path / "first"))


def test_a_clock_that_only_runs_changes_no_bit(tmp_path: Path) -> None:
    rows_of(OPTIONS, tmp_path / "timed", simulation=MIXTURE)
    plain = rows_of(OPTIONS, tmp_path / "plain")
    assert model_of(tmp_path / "timed") == model_of(tmp_path / "plain")
    assert all("simulated_seconds" not in row for row in plain)


def test_a_file_that_does_not_fit_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "speeds.csv").write_text("client,up_mbits,down_mbits\nclient-0,1,1\n")
    options = {**OPTIONS, "simulation": {"speed": {"name": "file", "file": str(tmp_path / "speeds.csv")}}}
    with pytest.raises(ConfigError, match="no row for client 'client-1'"):
        simulate(RunConfig.of(options), tmp_path / "run")
    assert not (tmp_path / "run").exists()
