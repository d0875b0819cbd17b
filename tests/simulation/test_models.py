"""The models of who is there and how fast: what they promise, and the same answers for the same seed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from thinwire.errors import ConfigError
from thinwire.simulation.availability import Always, DayNight, DropOut, Trace
from thinwire.simulation.config import SimulationConfig
from thinwire.simulation.speed import Classes, Constant, LogNormal, Measured, Pace

NAMES = [f"client-{index}" for index in range(1000)]
DAY = 86_400.0


def test_everybody_is_always_there() -> None:
    presence = Always().of(NAMES, 0)
    assert presence.online(1e9).all()
    assert presence.leaves(3, 5.0) == presence.next_change(5.0) == math.inf
    assert presence.vanishes(3, 1) is None


def test_drop_outs_come_with_their_probability_and_are_independent_from_question_to_question() -> None:
    presence = DropOut(0.2).of(NAMES, 7)
    first = np.array([presence.vanishes(client, 1) is not None for client in range(1000)])
    second = np.array([presence.vanishes(client, 2) is not None for client in range(1000)])
    # 200 expected, standard deviation 12.6; both: 40 expected, 6.2: four deviations either way
    assert 150 < first.sum() < 250
    assert 15 < (first & second).sum() < 65
    assert all(0 <= presence.vanishes(int(client), 1) < 1 for client in np.flatnonzero(first))  # type: ignore[operator]


def test_by_day_and_night_a_share_is_there_and_each_client_for_that_share_of_its_day() -> None:
    presence = DayNight(share=0.25).of(NAMES, 1)
    moments = np.arange(0, DAY, DAY / 96)
    there = np.stack([presence.online(float(moment)) for moment in moments])
    assert np.allclose(there.mean(axis=0), 0.25, atol=1 / 96)  # of each client, to one moment
    assert np.all(np.abs(there.mean(axis=1) - 0.25) < 0.06)  # of all clients at any moment: four deviations of 0.0137
    assert np.array_equal(presence.online(3.25 * DAY), presence.online(0.25 * DAY))


def test_a_client_leaves_when_it_is_no_longer_there_and_not_a_tick_before() -> None:
    presence = DayNight(period_seconds=1000.0, share=0.3).of(NAMES[:50], 1)
    tick = 1000.0 / 1440
    for client in np.flatnonzero(presence.online(123.0)):
        leaves = presence.leaves(int(client), 123.0)
        assert presence.online(leaves - tick / 2)[client]
        assert not presence.online(leaves + tick / 2)[client]


def test_nothing_changes_before_the_next_change() -> None:
    presence = DayNight(period_seconds=1000.0, share=0.3).of(NAMES, 1)
    seconds = 50.0
    for _ in range(50):
        change = presence.next_change(seconds)
        assert change > seconds
        assert np.array_equal(presence.online(seconds), presence.online(change - 1e-6))
        seconds = change


def test_a_spread_of_nothing_makes_one_night_for_all() -> None:
    presence = DayNight(share=0.5, spread=0.0).of(NAMES, 1)
    assert presence.online(0.25 * DAY).all()
    assert not presence.online(0.75 * DAY).any()


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_trace_says_who_is_there(suffix: str, tmp_path: Path) -> None:
    rows = [("client-1", 0, 10), ("client-0", 5, 20), ("client-1", 10, 12), ("client-1", 30, 40)]
    path = tmp_path / f"trace.{suffix}"
    if suffix == "csv":
        path.write_text("client, from, to\n" + "".join(f"{name}, {start}, {stop}\n" for name, start, stop in rows))
    else:
        path.write_text(json.dumps([{"client": name, "from": start, "to": stop} for name, start, stop in rows]))
    presence = Trace(str(path)).of(NAMES[:3], 0)
    assert [presence.online(moment).tolist() for moment in (0, 7, 12, 35, 40)] == [
        [False, True, False],
        [True, True, False],
        [True, False, False],
        [False, True, False],
        [False, False, False],
    ]
    assert presence.leaves(1, 3.0) == 12.0, "two spans without a gap are one"
    assert [presence.next_change(moment) for moment in (0.0, 12.0, 39.0, 40.0)] == [5.0, 20.0, 40.0, math.inf]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("client,from\nclient-0,1\n", "column 'to' is missing"),
        ("client,from,to,zone\nclient-0,1,2,x\n", "unknown column 'zone'"),
        ("client,from,to\nclient-0,1,soon\n", "to = 'soon' is no number"),
        ("client,from,to\nclient-9,1,2\n", "names client 'client-9'"),
        ("client,from,to\nclient-0,2,2\n", "is there from 2.0 to 2.0"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        Trace(str(tmp_path / "trace.csv")).of(NAMES[:3], 0)


def test_an_answer_takes_both_wires_both_latencies_and_the_examples() -> None:
    pace = Pace(up_mbits=1.0, down_mbits=10.0, latency_seconds=0.1, example_seconds=0.01)
    assert pace.seconds(down_bytes=1_250_000, examples=50, up_bytes=125_000) == pytest.approx(1.0 + 1.0 + 0.2 + 0.5)


def test_classes_are_mixed_by_their_shares() -> None:
    paces = Classes((1.0, 10.0, 100.0), shares=(0.2, 0.3, 0.5)).of(NAMES, 3)
    counts = [sum(pace.up_mbits == rate for pace in paces) for rate in (1.0, 10.0, 100.0)]
    assert np.allclose(counts, [200, 300, 500], atol=65)  # four standard deviations of 16
    assert all(pace.down_mbits == pace.up_mbits for pace in paces)


def test_log_normal_speeds_have_their_median_and_spread() -> None:
    paces = LogNormal(up_mbits=4.0, down_mbits=40.0, sigma=1.5).of(NAMES, 3)
    logarithms = np.log([pace.up_mbits for pace in paces])
    assert abs(logarithms.mean() - math.log(4.0)) < 4 * 1.5 / math.sqrt(1000)
    assert abs(logarithms.std() - 1.5) < 4 * 1.5 / math.sqrt(2000)
    assert all(pace.down_mbits == pytest.approx(10 * pace.up_mbits) for pace in paces)


def test_the_same_seed_gives_the_same_speeds_and_another_seed_others() -> None:
    assert LogNormal().of(NAMES, 1) == LogNormal().of(NAMES, 1) != LogNormal().of(NAMES, 2)
    assert list(Classes().of(NAMES[:10], 1)) == list(Classes().of(NAMES, 1))[:10], "it depends on the number"


def test_measured_speeds_come_from_a_file_that_names_everybody(tmp_path: Path) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text("client,up_mbits,down_mbits,example_seconds\nclient-1,2,3,0.5\nclient-0,1,8,\n")
    first, second = Measured(str(path)).of(NAMES[:2], 0)
    assert (first.up_mbits, first.down_mbits, first.example_seconds) == (1.0, 8.0, 0.001)
    assert second.example_seconds == 0.5
    with pytest.raises(ConfigError, match="no row for client 'client-2'"):
        Measured(str(path)).of(NAMES[:3], 0)


def test_time_is_simulated_only_where_speeds_or_absences_are_asked_for() -> None:
    assert SimulationConfig().models() is None
    assert SimulationConfig(availability={"name": "always"}).models() is None
    assert SimulationConfig(speed={"name": "classes"}).models() == (Always(), Classes())
    assert SimulationConfig(availability={"name": "drop-out"}).models() == (DropOut(), Constant())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"speed": {"name": "clases"}}, "did you mean 'classes'"),
        ({"speed": {"up_mbits": 3}}, "unknown simulation.speed.name ''"),
        ({"speed": {"name": "classes", "shares": [1.0]}}, "3 up_mbits, 0 down_mbits and 1 shares differ"),
        ({"speed": {"name": "constant", "up_mbits": 0}}, "up_mbits = 0.0"),
        ({"availability": {"name": "drop-out", "probability": 1.5}}, r"probability = 1.5 is not in \[0, 1\]"),
        ({"availability": {"name": "day-night", "share": 0}}, r"share = 0.0 in \(0, 1\]"),
        ({"availability": {"name": "trace"}}, "simulation.availability.file' is missing"),
    ],
)
def test_models_that_cannot_be_are_refused_with_what_is_allowed(options: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        SimulationConfig(**options)  # type: ignore[arg-type]
