"""An operator sees a run over a real socket, holds it, and ends it without losing anything."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from control_kit import CLIENTS, RUN, clients, running, wait_for

from server.control import service
from server.control.service import MOST_WATCHERS
from server.run_store import open_run
from thinwire.cli.commanding import drain, list_clients
from thinwire.errors import ConfigError
from thinwire.v1 import operator_pb2 as messages
from thinwire.wire.operator import Operator


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
        assert "a checkpoint" in operator.checkpoint().message
        wait_for(lambda: open_run(tmp_path).events(kinds=["checkpoint"]), "checkpoint")
        assert operator.status().round == held.round
        assert operator.resume().message == f"the run goes on with round {held.round + 1}"
        wait_for(lambda: operator.status().round > held.round, "next round")
        with pytest.raises(ConfigError, match="the run is not held"):
            operator.resume()
        kinds = [event.kind for event in operator.watch(0, timeout_seconds=0.5)]
        assert [k for k in kinds if k in ("paused", "checkpoint", "unpaused")] == ["paused", "checkpoint", "unpaused"]


def test_a_run_that_is_resumed_and_held_in_one_breath_is_held(tmp_path: Path) -> None:
    with running(tmp_path) as (_, operator):
        operator.pause()
        before = wait_for(lambda: (s := operator.status()).state == messages.RUN_STATE_PAUSED and s, "held run").round
        operator.resume()
        assert "is held" in operator.pause().message
        wait_for(lambda: operator.status().state == messages.RUN_STATE_PAUSED, "run that is held again")
        assert operator.status().round <= before + 1
        kinds = [event.kind for event in operator.watch(0, timeout_seconds=0.5)]
        assert [kind for kind in kinds if "paused" in kind] == ["paused", "unpaused", "paused"]


def test_a_held_run_still_answers_the_door(tmp_path: Path) -> None:
    with running(tmp_path) as (server, operator):
        wait_for(lambda: operator.status().round >= 1, "first round")
        operator.pause()
        wait_for(lambda: operator.status().state == messages.RUN_STATE_PAUSED, "held run")
        with clients(server.grid.address, server.bench, ["eve", "client-1"]) as outcomes:
            wait_for(lambda: outcomes.get("eve"), "stranger that was sent away")
            assert "is not in this run's roster" in outcomes["eve"]
            wait_for(lambda: server.outcomes.get("client-1"), "older process of the client that came back")
            assert operator.status().state == messages.RUN_STATE_PAUSED
            operator.resume()
            version = operator.status().round
            wait_for(lambda: operator.status().round >= version + 2, "round with the new process")
            assert server.folder.rounds()[-1]["replied"] == [0, 1, 2]


def test_a_stopped_run_leaves_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    with running(tmp_path) as (server, operator):
        wait_for(lambda: operator.status().round >= 2, "second round")
        assert "thinwire server --resume" in operator.stop().message
        server.join()
        assert server.outcome is None
        assert server.strategy.stopped
        assert not (tmp_path / "control.json").exists()
        decided = server.strategy.coordinator.ledger.replicated.version
        before = sum(row["seconds"] for row in server.folder.rounds())
    with running(tmp_path) as (server, operator):
        assert operator.status().round >= decided  # also before it is opened again
        status = wait_for(lambda: (s := operator.status()).round > decided and s, "round after the resume")
        assert server.strategy.resumed_rounds == 0
        assert status.uplink_bytes > 0
        rows = server.folder.rounds()[: status.round]
        assert status.seconds == pytest.approx(sum(row["seconds"] for row in rows))  # of both processes
        assert status.seconds > before
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
        assert events[-1].kind == "finished"


def test_a_drained_client_is_asked_no_more_until_it_is_asked_again(tmp_path: Path) -> None:
    with running(tmp_path) as (server, operator):
        wait_for(lambda: operator.status().round >= 2, "second round")
        operator.drain("client-1")
        wait_for(lambda: operator.clients()[1].state == messages.CLIENT_STATE_DRAINED, "drained client")
        drained = operator.status().round
        wait_for(lambda: operator.status().round >= drained + 3, "round without it")
        client = operator.clients()[1]
        assert client.weight == pytest.approx(1 / CLIENTS)
        rows = [row for row in server.folder.rounds() if row["round"] > drained + 1]
        assert rows
        assert all(row["asked"] == [0, 2] for row in rows)
        with pytest.raises(ConfigError, match="is drained already"):
            operator.drain("client-1")
        operator.drain("client-1", undo=True)
        with pytest.raises(ConfigError, match="'client-0' is not drained"):
            operator.drain("client-0", undo=True)
        wait_for(lambda: server.folder.rounds()[-1]["asked"] == [0, 1, 2], "round with it")
        with pytest.raises(ConfigError, match="no client of this run is called 'client-9'; did you mean"):
            operator.drain("client-9")


def test_the_last_client_that_rounds_may_ask_cannot_be_drained_nor_banned(tmp_path: Path) -> None:
    with running(tmp_path) as (_, operator):
        wait_for(lambda: operator.status().round >= 1, "first round")
        operator.drain("client-0")
        operator.drain("client-1")
        wait_for(lambda: operator.clients()[1].state == messages.CLIENT_STATE_DRAINED, "drained clients")
        for refused in (operator.drain, operator.ban):
            with pytest.raises(ConfigError, match="is the last that rounds may ask"):
                refused("client-2")


def test_a_banned_client_is_told_why_and_stays_out_when_the_run_is_resumed(tmp_path: Path) -> None:
    with running(tmp_path) as (server, operator):
        wait_for(lambda: operator.status().round >= 2, "second round")
        operator.ban("client-2", "sends noise")
        wait_for(lambda: server.outcomes.get("client-2"), "client that was sent away")
        assert "client 'client-2' was banned from this run: sends noise" in server.outcomes["client-2"]
        wait_for(lambda: operator.clients()[2].state == messages.CLIENT_STATE_BANNED, "banned client")
        assert [client.weight for client in operator.clients()] == [0.5, 0.5, 0.0]
        assert operator.status().clients == CLIENTS - 1
        banned = operator.status().round
        wait_for(lambda: operator.status().round >= banned + 3, "round without it")
        assert server.folder.rounds()[-1]["asked"] == [0, 1]
        with pytest.raises(ConfigError, match="is banned already"):
            operator.ban("client-2")
        operator.stop()
        server.join()
    with running(tmp_path) as (server, operator):
        wait_for(lambda: server.outcomes.get("client-2"), "client that was sent away again")
        assert "sends noise" in server.outcomes["client-2"]
        assert [client.weight for client in operator.clients()] == [0.5, 0.5, 0.0]
        events = [event for event in operator.watch(0, timeout_seconds=0.5) if event.kind == "banned"]
        assert [(event.client, json.loads(event.fields)["by"]) for event in events] == [("client-2", "local")]
        assert "sends noise" in operator.clients()[2].last_failure


def test_a_changed_configuration_reaches_server_and_clients_and_is_kept(tmp_path: Path) -> None:
    with running(tmp_path) as (server, operator):
        wait_for(lambda: operator.status().round >= 2, "second round")
        rate = str(server.config.optimiser["rate"] / 2)
        keys = {"participation.fraction": "0.4", "optimiser.rate": rate, "local.rate": "0.025", "round.retries": "7"}
        operator.change(keys)
        wait_for(lambda: server.kept, "kept configuration")
        changed = server.kept[-1]
        assert changed.participation.fraction == 0.4
        assert changed.round.retries == 7
        assert changed.local["rate"] == 0.025
        version = operator.status().round
        wait_for(lambda: operator.status().round > version + 2, "round after the change")
        assert len(server.folder.rounds()[-1]["asked"]) == 1
        assert server.strategy.method.optimiser.rate == float(rate)
        assert json.loads(operator.status().configuration)["round"]["retries"] == 7
        rates = [configuration["local"]["rate"] for configuration in server.bench.configurations]
        assert rates[:CLIENTS] == [0.1] * CLIENTS
        assert set(rates[CLIENTS:]) == {0.025}
        (event,) = (event for event in operator.watch(0, timeout_seconds=0.5) if event.kind == "changed")
        assert json.loads(event.fields)["keys"]["participation.fraction"] == [1.0, 0.4]
        operator.change({"rounds": str(operator.status().round + 5)})
        server.join()
        assert server.outcome is None
        assert not server.strategy.stopped


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"method.name": "ef14"}, "'method.name' cannot be changed while a run runs; allowed: rounds, participation"),
        ({"participation.fraction": "1.5"}, "fraction = 1.5 is not in"),
        ({"rounds": "0"}, "rounds = 0"),
        ({"local.rate": "inf"}, "local.rate = inf must be a number above 0"),
        ({"optimiser.rate": "-1"}, "rate = -1"),
        ({"round.retries": "many"}, "round.retries = 'many'"),
        ({}, "nothing to change"),
        ({"rounds": "1" * 300}, "at most 32 keys and values of 200 characters"),
    ],
)
def test_what_cannot_be_changed_is_refused_with_what_can(held: Operator, keys: dict[str, str], reason: str) -> None:
    before = held.status().configuration
    with pytest.raises(ConfigError, match=re.escape(reason)):
        held.change(keys)
    assert held.status().configuration == before


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator of a run that is held."""
    with running(tmp_path_factory.mktemp("run")) as (_, operator):
        operator.pause()
        wait_for(lambda: operator.status().state == messages.RUN_STATE_PAUSED, "held run")
        yield operator


def test_a_reason_that_is_too_long_or_not_printable_is_refused(held: Operator) -> None:
    for reason in ("x" * 201, "two\nlines"):
        with pytest.raises(ConfigError, match="200 printable ones at most"):
            held.ban("client-0", reason)


def test_a_request_over_the_limit_is_refused(held: Operator) -> None:
    with pytest.raises(ConfigError, match="larger than max"):
        held.change({"x" * 70_000: "1"})


def test_several_clients_are_asked_for_at_once_and_answered_as_one_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as (_, operator):
        here = {"run": tmp_path, "address": None, "ca": None, "certificate": None, "key": None}
        wait_for(lambda: operator.status().round >= 1, "first round")
        drain(names=["client-0", "client-1"], undo=False, json_=True, **here)
        told = [one["message"] for one in json.loads(capsys.readouterr().out)]
        assert [message.split(" is ")[0] for message in told] == ["client 'client-0'", "client 'client-1'"]
        list_clients(state=["drained"], limit=1, json_=True, **here)
        assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["client-0"]
        list_clients(state=["drained"], limit=1, json_=False, **here)
        listed = capsys.readouterr()
        assert [line.split()[0] for line in listed.out.splitlines()] == ["client", "client-0"]
        assert listed.err == "1 of 2 clients; --limit N shows more, --json all\n"
        with pytest.raises(ConfigError, match="no client of this run is called 'nobody'"):
            drain(names=["client-1", "nobody"], undo=True, json_=True, **here)
        assert len(json.loads(capsys.readouterr().out)) == 1  # what was done is told


def test_a_large_roster_is_told_again_as_it_was_until_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SOON_SECONDS", -1.0)  # every roster is large
    monkeypatch.setattr(service, "ROSTER_REST", 1e9)
    with running(tmp_path) as (_, operator):
        wait_for(lambda: operator.status().round >= 1, "first round")
        before, number = operator.clients(), operator.status().round
        wait_for(lambda: operator.status().round > number + 1, "later round")
        assert operator.clients() == before
        operator.drain("client-0")
        assert operator.clients()[0].state == messages.CLIENT_STATE_DRAINED


def one_more_of(held: Operator) -> Operator:
    """Another connection to the same server."""
    return Operator.of_run(Path(held.status().run_directory))


def test_more_watchers_than_allowed_are_sent_away(held: Operator) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_WATCHERS):  # each over a connection of its own
            watcher = stack.enter_context(one_more_of(held)).watch(0)
            assert next(watcher).sequence >= 1
            stack.callback(watcher.close)
        with one_more_of(held) as one_more, pytest.raises(ConfigError, match="16 watch this run already"):
            next(one_more.watch(0))
