"""MASHA plays the game against an adversary on the hosts: refreshes, samples and phases, the same bits everywhere."""

from pathlib import Path
from typing import Any

import pytest
from hosts_support import BASE, in_process, in_step, on_fleet

from server.run_directory import RunDirectory
from strategies.anchored import AnchoredReplica

GAME = {"name": "adversarial-digits", "hidden": [12], "attack_steps": 2, "client_test_fraction": 0.2}
CASES: dict[str, dict[str, Any]] = {
    "masha1, a shared mask": {
        "method": {
            "name": "masha1",
            "p": 0.4,
            "rate": 0.2,
            "prox": {"name": "l2", "weight": 0.01, "tensors": "network.*"},
        },
        "uplink": {"name": "rand-k", "fraction": 0.2, "values": "natural", "shared": True},
        "downlink": "natural",
        "local": {"work": "full"},
    },
    "masha2, minibatches": {
        "method": {"name": "masha2", "p": 0.4, "rate": 0.2},
        "uplink": {"name": "top-k", "fraction": 0.1},
        "downlink": {"name": "top-k", "fraction": 0.1},
        "local": {"work": "minibatch", "batch": 16},
    },
    "masha2, no refreshes": {
        "method": {"name": "masha2", "rate": 0.2, "variance_reduction": False},
        "uplink": {"name": "top-k", "fraction": 0.1},
        "downlink": {"name": "top-k", "fraction": 0.1},
        "local": {"work": "minibatch", "batch": 16},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_game_over_grpc_ends_with_the_bits_of_one_process(case: str, tmp_path: Path) -> None:
    options = {**BASE, **CASES[case], "task": GAME}
    expected = in_process(options, tmp_path / "simulated")
    assert on_fleet(options, tmp_path / "fleet", tmp_path / "states") == expected
    in_step(tmp_path / "fleet", tmp_path / "states")
    folder = RunDirectory(tmp_path / "fleet", mirrors=False)
    try:
        loaded = folder.load()
        assert loaded is not None
        replica = loaded[0].replica.method
        assert isinstance(replica, AnchoredReplica)
        assert replica.version > 0  # w has moved since the start
    finally:
        folder.close()
