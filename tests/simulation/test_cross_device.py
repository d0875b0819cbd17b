"""What a simulation of many clients takes where nothing is named, and the flags that say how it is played."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from server.run_directory import read_rounds
from thinwire.cli.cross_device import DIRECT, fitted, with_cohort
from thinwire.cli.engines import InProcess, OnFlower, engine_of
from thinwire.cli.simulation import simulate
from thinwire.errors import ConfigError
from thinwire.partition import Scheme, draw
from thinwire.run_config import RunConfig

MANY: dict[str, Any] = {"clients": 1000, "participation": {"fraction": 0.01}}
LABELS = np.repeat(np.arange(10), 60)


def downlink_of(options: dict[str, Any]) -> dict[str, Any]:
    return RunConfig.of(fitted(options)[0]).downlink


def test_the_cohort_is_exactly_as_many_clients_as_it_says() -> None:
    for clients, cohort in ((10_000, 100), (7, 3), (1000, 333), (3, 3)):
        config = RunConfig.of(with_cohort({"clients": clients}, cohort, None))
        assert config.participation.cohort(clients) == cohort


@pytest.mark.parametrize(
    ("cohort", "participation", "fault"),
    [(5, 0.5, "--cohort and --participation say the same thing"), (0, None, "not in 1 to 10"), (11, None, "1 to 10")],
)
def test_a_cohort_that_cannot_be_is_refused(cohort: int, participation: float | None, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        with_cohort({}, cohort, participation)


def test_clients_that_are_seldom_asked_are_sent_the_model_and_one_line_says_so() -> None:
    options, notes = fitted(MANY)
    assert RunConfig.of(options).downlink == DIRECT
    assert len(notes) == 1
    assert "direct" in notes[0]
    assert "once in 100 rounds" in notes[0]


def test_who_names_a_downlink_or_asks_often_keeps_it() -> None:
    assert downlink_of({**MANY, "downlink": {"name": "natural"}}) == {"name": "natural"}
    assert downlink_of({**MANY, "method": "diloco"}) == {"name": "identity"}, "a preset names its own"
    assert downlink_of({"clients": 1000, "participation": {"fraction": 0.02}}) == RunConfig().downlink


def test_a_method_without_a_channel_keeps_its_downlink() -> None:
    assert downlink_of({**MANY, "method": "double-squeeze"}) == RunConfig().downlink


def test_a_newcomer_is_sent_the_last_direct_downlink_and_no_snapshot(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "clients": 60,
        "rounds": 6,
        "participation": {"fraction": 0.05},
        "method": "fedavg",
        "uplink": "identity",
        "downlink": dict(DIRECT),
        "evaluation": {"where": "none"},
        "task": {"name": "digits", "hidden": [64], "partition": "iid"},
    }
    first, *later = read_rounds(simulate(RunConfig.of(options), tmp_path / "run").run_dir)
    assert all(row["downlink_bytes"] < 0.3 * first["downlink_bytes"] for row in later)


def test_more_clients_than_examples_share_them_and_one_line_says_so() -> None:
    options, notes = fitted({"clients": 1500, "participation": {"fraction": 0.1}})
    assert options["task"]["partition"] == "drawn"
    assert len(notes) == 1
    assert "share" in notes[0]
    assert fitted({"clients": 1400, "participation": {"fraction": 0.1}})[1] == []


def test_a_partition_that_was_named_is_not_changed() -> None:
    assert fitted({"clients": 1500, "task": {"name": "digits", "partition": "iid"}})[0]["task"]["partition"] == "iid"


def test_drawn_shares_have_the_classes_mix_of_their_client_and_do_not_depend_on_the_number_of_clients() -> None:
    scheme = Scheme("drawn", alpha=0.1, drawn=40)
    shares = [draw(scheme, LABELS, client, seed=3) for client in range(50)]
    assert all(len(share) == 40 and share.min() >= 0 and share.max() < 600 for share in shares)
    most = [np.bincount(LABELS[share], minlength=10).max() / 40 for share in shares]
    assert np.mean(most) > 0.5, "a small concentration leaves a client with few classes"
    even = [draw(Scheme("drawn", alpha=1e4, drawn=400), LABELS, client, seed=3) for client in range(20)]
    assert max(np.bincount(LABELS[share], minlength=10).max() / 400 for share in even) < 0.2
    assert np.array_equal(draw(scheme, LABELS, 7, seed=3), shares[7])
    assert not np.array_equal(draw(scheme, LABELS, 7, seed=4), shares[7])


def test_a_tiny_concentration_still_draws() -> None:
    share = draw(Scheme("drawn", alpha=1e-6, drawn=10), LABELS, 0, seed=0)
    assert len(set(LABELS[share])) == 1


def test_flags_of_the_other_engine_are_refused() -> None:
    assert engine_of("in-process", 2, 1.0, 0.0) == InProcess(2)
    assert engine_of("flower", 1, 1.0, 0.25) == OnFlower(1.0, 0.25)
    with pytest.raises(ConfigError, match="--workers is for the engine in-process"):
        engine_of("flower", 2, 1.0, 0.0)
    with pytest.raises(ConfigError, match="are for --engine flower"):
        engine_of("in-process", 1, 1.0, 0.25)


def test_flowers_engine_says_what_to_install_and_what_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = RunConfig.of({"simulation": {"speed": {"name": "classes"}}})
    with pytest.raises(ConfigError, match="simulated time runs in process only"):
        OnFlower().check(timed)
    with pytest.raises(ConfigError, match=r"client-cpus = 0\.0 must be above 0"):
        OnFlower(0.0).check(RunConfig())
    with pytest.raises(ConfigError, match="client-cpus = 1000 are more than the"):
        OnFlower(1000.0).check(RunConfig())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "thinwire\[ray\]"'):
        OnFlower().check(RunConfig())
