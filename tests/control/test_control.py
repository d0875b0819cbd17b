"""An operator sees a run over a real socket, holds it, and ends it without losing anything."""

import json
from pathlib import Path

import pytest
from control_kit import CLIENTS, RUN, running, wait_for

from thinwire.errors import ConfigError
from thinwire.v1 import operator_pb2 as messages


def test_the_operator_sees_the_run_and_its_clients(tmp_path: Path) -> None:
    with running(tmp_path) as (_, operator):
        wait_for(lambda: operator.status().round >= 3, "third round")
        status = operator.status()
        assert (status.run, status.state, status.clients) == (RUN, messages.RUN_STATE_RUNNING, CLIENTS)
        assert status.connected == CLIENTS
        assert status.uplink_bytes > 0
        assert status.dense_bytes > 0
        assert json.loads(status.configuration)["method"]["name"] == "ef21"
        assert status.run_directory == str(tmp_path)
        listed = operator.clients()
        assert [client.name for client in listed] == [f"client-{i}" for i in range(CLIENTS)]
        for client in listed:
            assert client.state == messages.CLIENT_STATE_CONNECTED
            assert client.asked >= client.replied >= 3
            assert client.weight == pytest.approx(1 / CLIENTS)
            assert client.uplink_bytes > 0
            assert client.mean_seconds > 0
            assert client.last_seen > 1.7e9
            assert client.version >= 2
            assert client.address.startswith("ipv")


def test_a_held_run_asks_nobody_until_it_is_resumed(tmp_path: Path) -> None:
    with running(tmp_path) as (_, operator):
        wait_for(lambda: operator.status().round >= 2, "second round")
        assert "is held" in operator.pause().message
        held = wait_for(lambda: (s := operator.status()).state == messages.RUN_STATE_PAUSED and s, "held run")
        assert list(held.asked) == []
        assert held.connected == CLIENTS
        assert "is written" in operator.checkpoint().message
        assert operator.status().round == held.round
        assert operator.resume().message == f"the run goes on with round {held.round + 1}"
        wait_for(lambda: operator.status().round > held.round, "next round")
        with pytest.raises(ConfigError, match="the run is not held"):
            operator.resume()
        kinds = [event.kind for event in operator.watch(0, timeout_seconds=0.5)]
        assert [k for k in kinds if k in ("paused", "checkpoint", "unpaused")] == ["paused", "checkpoint", "unpaused"]


def test_a_stopped_run_leaves_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    with running(tmp_path) as (server, operator):
        wait_for(lambda: operator.status().round >= 2, "second round")
        assert "thinwire server --resume" in operator.stop().message
        server.join()
        assert server.outcome is None
        assert server.strategy.stopped
        assert not (tmp_path / "control.json").exists()
        decided = server.strategy.coordinator.ledger.replicated.version
    with running(tmp_path) as (server, operator):
        status = wait_for(lambda: (s := operator.status()).round > decided and s, "round after the resume")
        assert server.strategy.resumed_rounds == 0
        assert status.uplink_bytes > 0
        assert all(client.asked >= decided for client in operator.clients())


def test_a_run_is_stopped_while_it_waits_for_its_clients(tmp_path: Path) -> None:
    with running(tmp_path, clients=CLIENTS + 1) as (server, operator):
        assert operator.status().state == messages.RUN_STATE_GATHERING
        with pytest.raises(ConfigError, match="the run waits for its clients"):
            operator.checkpoint()
        assert "nothing to resume" in operator.stop().message
        server.join()
        assert type(server.outcome).__name__ == "Stopped"


def test_a_watcher_sees_every_event_once_and_ends_with_the_run(tmp_path: Path) -> None:
    with running(tmp_path, rounds=20) as (server, operator):
        events = list(operator.watch(0, timeout_seconds=60))
        server.join()
        numbers = [event.sequence for event in events]
        assert numbers == sorted(set(numbers))
        assert [event.round for event in events if event.kind == "round"] == list(range(1, 21))
        assert {"opened", "hello", "roster"} <= {event.kind for event in events}
