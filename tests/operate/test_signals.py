"""Ctrl-C and SIGTERM, to real processes: once ends well and says how to go on, twice ends now; nothing is lost."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from operate_support import Process, Shell, free_port, shell, wait_for

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from server.run_store import open_run
from strategies.steering import Stopped
from thinwire.cli.interruption import EndsAfterRound, Interruption

TINY = ("--clients", "2", "--set", "task.hidden=[4]", "--set", "local.steps=1", "--set", "evaluation.where=none")
LONG = ("--rounds", "100000")


@pytest.fixture
def sh(tmp_path: Path) -> Iterator[Shell]:
    with shell(tmp_path) as one:
        yield one


def begun(sh: Shell, address: str) -> tuple[Process, list[Process]]:
    """A server and two clients, some rounds on their way."""
    server = sh.start(
        "server", *TINY, *LONG, "--address", address, "--out", "run", "--set", "participation.fraction=1.0"
    )
    clients = [sh.start("client", "--server", address, "--name", name, "--state", "state") for name in ("ann", "bob")]
    wait_for(lambda: rounds(sh) > 2, server.story)
    return server, clients


def rounds(sh: Shell) -> int:
    run = sh.folder / "run"
    return len(open_run(run).rounds()) if (run / "run.sqlite").exists() else 0


def resumed_and_finished(sh: Shell, address: str, clients: list[Process], done: int) -> None:
    """The run goes on where it was, with the clients that waited, to its end."""
    finish = ("--set", f"rounds={done + 3}")
    server = sh.start("server", "--resume", "run", "--address", address, *finish)
    assert server.ended() == 0, server.story()
    assert [client.ended() for client in clients] == [0, 0], clients[0].story()
    assert [row["round"] for row in open_run(sh.folder / "run").rounds()] == list(range(1, done + 4))
    server = sh.start("server", "--resume", "run", "--address", address)
    assert server.ended() == 0, server.story()
    assert any(f"the run in run is over, {done + 3} rounds" in line for line in server.err)


def left_and_back(sh: Shell, address: str, client: Process) -> Process:
    """A client that is told to leave gives its answer first, and takes part again with its private state in step."""
    client.send(signal.SIGTERM)
    assert client.ended(30) == 130, client.story()
    assert "takes part again, with its state" in client.err[-1]
    before = rounds(sh)
    again = sh.start("client", "--server", address, "--name", "ann", "--state", "state")
    wait_for(lambda: rounds(sh) > before + 2, again.story)
    events = open_run(sh.folder / "run").events(kinds=["client-lacks", "hostile", "reset"])
    assert [event for event in events if "replica" not in event["detail"]] == []
    return again


def test_a_client_leaves_well_and_a_server_at_the_first_signal_and_at_once_at_the_second(sh: Shell) -> None:
    address = f"127.0.0.1:{free_port()}"
    server, clients = begun(sh, address)
    clients[0] = left_and_back(sh, address, clients[0])
    server.send(signal.SIGTERM)
    assert server.ended() == 130, server.story()
    assert any("SIGTERM: the run ends after the open round, with a checkpoint" in line for line in server.err)
    assert any("go on with thinwire server --resume run" in line for line in server.err)
    assert open_run(sh.folder / "run").info.state == "stopped"
    done = rounds(sh)

    server = sh.start("server", "--resume", "run", "--address", address)
    wait_for(lambda: rounds(sh) > done, server.story)
    clients[0].send(signal.SIGSTOP)  # so that no round can end: the first signal alone would wait for it
    server.send(signal.SIGINT)
    server.told("Ctrl-C: the run ends after the open round")
    server.send(signal.SIGINT)
    assert server.ended() == 130, server.story()
    assert any("nothing is lost: thinwire server --resume run goes on" in line for line in server.err)
    clients[0].send(signal.SIGCONT)
    resumed_and_finished(sh, address, clients, rounds(sh))


def test_a_server_that_waits_for_clients_ends_at_the_first_signal(sh: Shell) -> None:
    server = sh.start("server", *TINY, "--address", "127.0.0.1:0", "--out", "run", "--log-json")
    server.told("listening on")
    server.told("the operator is heard at")
    server.send(signal.SIGINT)
    assert server.ended(30) == 130, server.story()
    lines = [json.loads(line) for line in server.err]
    assert any("stopped before the first round" in line["message"] for line in lines)


def test_a_simulation_ends_after_the_open_round_and_keeps_what_was_done(sh: Shell) -> None:
    simulation = sh.start("simulate", *TINY, *LONG, "--no-baseline", "--out", "run")
    wait_for(lambda: rounds(sh) > 2, simulation.story)
    simulation.send(signal.SIGINT)
    assert simulation.ended() == 130, simulation.story()
    assert "a simulation is not resumed; run holds the rounds that were done" in simulation.err[-1]
    assert (sh.folder / "run" / "model.safetensors").exists()
    assert open_run(sh.folder / "run").info.state == "stopped"


# -- in this process ---------------------------------------------------------------------------------------------


def test_the_first_signal_calls_the_end_and_the_second_interrupts() -> None:
    ended: list[str] = []
    called = threading.Event()

    def end(by: str) -> None:
        ended.append(by)
        called.set()

    with Interruption() as interruption, interruption.ends(end, "it ends"):
        signal.raise_signal(signal.SIGINT)
        assert called.wait(10)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert ended == ["Ctrl-C"]
    assert interruption.by == "Ctrl-C"


def test_a_signal_before_there_is_anything_to_end_interrupts() -> None:
    with Interruption(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_simulation_is_steered_to_its_end() -> None:
    ends = EndsAfterRound()
    ends.between()
    ends.end("Ctrl-C")
    with pytest.raises(Stopped):
        ends.between()
