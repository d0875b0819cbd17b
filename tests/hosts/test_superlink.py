"""Flower's SuperLink with SuperNodes on loopback, and ``flwr run``: again the same bits."""

from pathlib import Path
from typing import Any

import pytest
from hosts_support import events_of, in_process, in_step, model_of, options_of, run_config
from superlink_support import Deployment, deployment

ROOT = Path(__file__).parents[2]
NODES = 2
CASE = "ef21 top-k, natural down"


def check(deployed: Deployment, options: dict[str, Any], tmp: Path) -> None:
    """A run of the repository's own app ends with the bits of one process, and no client lacked what it had."""
    said = deployed.run(ROOT, run_config(options, tmp / "run"))
    assert (tmp / "run" / "model.safetensors").exists(), said
    assert model_of(tmp / "run") == in_process(options, tmp / "simulated")
    assert not events_of(tmp / "run", "client-lacks")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_superlink_ends_with_the_bits_of_one_process(tmp_path: Path) -> None:
    states = tmp_path / "states"
    nodes = [{"partition-id": index, "num-partitions": NODES, "state": str(states)} for index in range(NODES)]
    options = options_of(CASE, tmp_path, clients=NODES, rounds=4, participation={"fraction": 1.0})
    with deployment(tmp_path, nodes) as deployed:
        check(deployed, options, tmp_path)
        in_step(tmp_path / "run", states)


@pytest.mark.timeout(900)
def test_a_process_of_its_own_with_tls_and_a_key_ends_with_the_same_bits(tmp_path: Path) -> None:
    states = tmp_path / "states"
    options = options_of(CASE, tmp_path, clients=1, rounds=1, participation={"fraction": 1.0})
    options["evaluation"] = {"where": "none"}
    with deployment(tmp_path, [{"client-id": "hospital-a", "state": str(states)}], hardened=True) as deployed:
        check(deployed, options, tmp_path)
    (folder,) = states.iterdir()
    assert [path.name for path in folder.iterdir()] == ["hospital-a"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_tls_and_authenticated_supernodes_end_with_the_same_bits(tmp_path: Path) -> None:
    states, names = tmp_path / "states", ["hospital-b", "hospital-a"]
    nodes = [{"client-id": name, "state": str(states)} for name in names]
    options = options_of(CASE, tmp_path, clients=NODES, rounds=2, participation={"fraction": 1.0})
    with deployment(tmp_path, nodes, hardened=True) as deployed:
        check(deployed, options, tmp_path)
        in_step(tmp_path / "run", states)
        assert [node["status"] for node in deployed.nodes()] == ["online"] * NODES
    (folder,) = states.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)  # not the nodes' ids
