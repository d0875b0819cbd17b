"""The command line as people and scripts meet it: one line per mistake, one JSON object per run."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hosts_support import BASE, fleet, run_config
from safetensors.torch import load_file, save_file

from server.app import serve
from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from server.run_directory import RunDirectory
from server.run_store import read_rounds
from thinwire.cli import main
from thinwire.errors import ThinwireError

FIXED_KEYS = {"method", "uplink", "downlink", "rounds", "clients", "accuracy", "loss", "seconds"}
FIXED_KEYS |= {"uplink_bytes", "downlink_bytes", "dense_bytes", "run_dir"}
SMALL = ("--clients", "3", "--rounds", "2", "--set", "task.hidden=[8]")


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    def fault(self) -> str:
        """The one line that says what went wrong; there is nothing else."""
        assert self.out == ""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line


Thinwire = Callable[..., Ended]


@pytest.fixture
def thinwire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Thinwire:
    """The command line, in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["thinwire", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Ended(code, out, err)

    return run


# -- mistakes ----------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "key": (("--set", "uplink.fracton=0.1"), ("'uplink.fracton'", "did you mean 'fraction'")),
    "section": (("--set", "uplnk.fraction=0.1"), ("'uplnk'", "did you mean 'uplink'")),
    "assignment": (("--set", "uplink.fraction"), ("write key=value",)),
    "value": (("--set", "uplink.fraction=2"), ("uplink", "fraction = 2", "above 0 and at most 1")),
    "type": (("--set", "rounds=many"), ("rounds", "'many'")),
    "compressor": (("--uplink", "topk"), ("unknown compressor 'topk'", "did you mean 'top-k'")),
    "method": (("--method", "ef12"), ("unknown method 'ef12'", "did you mean 'ef21'")),
    "task": (("--task", "digit"), ("unknown task 'digit'", "did you mean 'digits'")),
    "pair": (("--method", "fedavg", "--uplink", "top-k"), ("fedavg", "top-k", "unbiased")),
    "import": (("--task", "no_such_module:Task"), ("'no_such_module:Task' cannot be imported", "PYTHONPATH")),
    "flag": (("--cliens", "3"), ("--cliens",)),
    "device": (("--set", "threads=-1"), ("threads = -1",)),
    "trainable": (("--set", 'task.trainable=["head.*"]'), ("no trainable parameter matches 'head.*'",)),
    "init": (("--init", "absent.safetensors"), ("cannot read init = absent.safetensors",)),
    "config file": (("--config", "absent.toml"), ("absent.toml",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("command", ["simulate", "server"])
def test_a_mistake_is_one_line_that_says_what_is_allowed(command: str, mistake: str, thinwire: Thinwire) -> None:
    arguments, phrases = MISTAKES[mistake]
    ended = thinwire(command, *arguments)
    assert ended.code == 2
    assert [phrase for phrase in phrases if phrase not in ended.fault()] == []
    assert not Path("runs").exists(), "a run directory was left behind"


def test_more_clients_than_examples_are_refused_in_one_line(thinwire: Thinwire) -> None:
    ended = thinwire("simulate", "--clients", "1500", "--no-baseline", "--set", "task.partition=iid")
    assert ended.code == 2
    assert "1438 examples are too few for 1500 clients" in ended.fault()


def test_a_toml_file_that_cannot_be_read_names_the_line(thinwire: Thinwire, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("rounds = 3\nuplink = {\n")
    ended = thinwire("simulate", "--config", "run.toml")
    assert ended.code == 2
    assert "run.toml" in ended.fault()
    assert "line 2" in ended.fault()


def test_weights_that_do_not_fit_are_named(thinwire: Thinwire, tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    ended = thinwire("simulate", *SMALL, "--init", "other.safetensors")
    assert ended.code == 2
    assert "'0.weight' has (3, 3); the model needs (8, 64)" in ended.fault()


def test_a_run_directory_that_holds_a_run_is_not_written_to(thinwire: Thinwire) -> None:
    assert thinwire("simulate", *SMALL, "--no-baseline", "--out", "run").code == 0
    for command in ("simulate", "server"):
        ended = thinwire(command, *SMALL, "--out", "run")
        assert ended.code == 2
        assert "run holds a run already" in ended.fault()


@pytest.mark.parametrize("command", ["simulate", "server"])
def test_a_run_directory_in_use_is_told(command: str, thinwire: Thinwire, tmp_path: Path) -> None:
    held = RunDirectory(tmp_path / "run")
    try:
        ended = thinwire(command, *SMALL, *(["--no-baseline"] if command == "simulate" else []), "--out", "run")
    finally:
        held.close()
    assert ended.code == 2
    assert "run is in use by another server" in ended.fault()


def test_a_run_directory_that_cannot_be_made_is_told(thinwire: Thinwire, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = thinwire("simulate", *SMALL, "--no-baseline", "--out", "file/run")
    assert ended.code == 2
    assert "file/run" in ended.fault()


@pytest.mark.parametrize("made", [True, False])
def test_only_a_run_can_be_resumed(made: bool, thinwire: Thinwire, tmp_path: Path) -> None:
    if made:
        (tmp_path / "run").mkdir()
    ended = thinwire("server", "--resume", "run")
    assert ended.code == 2
    assert "run holds no run that can be resumed" in ended.fault()


def test_resume_and_out_exclude_each_other(thinwire: Thinwire) -> None:
    ended = thinwire("server", "--resume", "run", "--out", "other")
    assert ended.code == 2
    assert "not both" in ended.fault()


# -- server and clients that do not come together ----------------------------------------------------------------


def last_line(ended: Ended) -> str:
    """The error of a command that has said other things before."""
    assert "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_too_few_clients_end_the_wait_for_them(thinwire: Thinwire) -> None:
    ended = thinwire("server", *SMALL, "--address", "127.0.0.1:0", "--set", "server.gather_seconds=0.2")
    assert ended.code == 2
    assert "0 of 3 clients came within 0.2 s; start more clients or lower `clients`" in last_line(ended)


def test_a_busy_port_is_told(thinwire: Thinwire) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = thinwire("server", *SMALL, "--address", address)
    assert ended.code == 2
    assert address in last_line(ended)


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("--address", "0.0.0.0:0"), "without TLS"),
        (("--address", "somewhere"), "expected host:port"),
        (("--certificate", "absent.pem", "--key", "absent.key"), "cannot read the certificate 'absent.pem'"),
        (("--certificate", "absent.pem"), "set both or neither"),
    ],
)
def test_a_server_that_cannot_listen_says_why(arguments: tuple[str, ...], phrase: str, thinwire: Thinwire) -> None:
    ended = thinwire("server", *SMALL, *arguments)
    assert ended.code == 2
    assert phrase in ended.fault()
    assert not Path("runs").exists(), "a run directory was left behind"


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("--server", "somewhere"), "expected host:port"),
        (("--server", "192.0.2.1:8500"), "without TLS"),
        (("--ca", "absent.pem"), "absent.pem"),
        (("--task", "no_such_module:Task"), "cannot be imported"),
        (("--set", "sevrer='x'"), "did you mean 'server'"),
        (("--set", "task.name=digits", "--set", "task.hiden=[3]"), "did you mean 'hidden'"),
        (("--name", " "), "bad client name"),
        (("--name", "Ann Müller"), "bad client name 'Ann Müller'"),
        (("--config", "absent.toml"), "absent.toml"),
        (("--device", "tpu"), "device = 'tpu' is not there"),
    ],
)
def test_a_client_that_cannot_start_says_why(arguments: tuple[str, ...], phrase: str, thinwire: Thinwire) -> None:
    ended = thinwire("client", "--state", "states", *arguments)
    assert ended.code == 2
    assert phrase in ended.fault()


def test_a_server_that_cannot_be_reached_is_given_up(thinwire: Thinwire) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it; not listening
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        ended = thinwire("client", "--server", address, "--state", "states", "--set", "patience_seconds=0.3")
    assert ended.code == 2
    assert f"no connection to {address}" in last_line(ended)
    assert "check the address" in last_line(ended)


class Serving(NamedTuple):
    address: str
    fault: Callable[[], str]


@contextmanager
def serving(out: Path, token: str = "", **options: Any) -> Iterator[Serving]:
    """A server in a thread, and the error it ends with."""
    faults: list[str] = []
    with FleetGrid(FleetOptions(address="127.0.0.1:0", token=token), run_id=3) as grid:

        def run() -> None:
            try:
                serve(grid, run_config({**BASE, "clients": 1, **options}, out))
            except ThinwireError as error:
                faults.append(str(error))

        thread = threading.Thread(target=run, daemon=True)  # where nobody is let in, it waits for ever

        def fault() -> str:
            thread.join(30)
            return faults[0]

        thread.start()
        yield Serving(grid.address, fault)


def test_a_wrong_token_is_refused(thinwire: Thinwire, tmp_path: Path) -> None:
    with FleetGrid(FleetOptions(address="127.0.0.1:0", token="right"), run_id=3) as grid:
        ended = thinwire("client", "--server", grid.address, "--token", "wrong", "--state", "states")
    assert ended.code == 2
    assert "wrong token" in ended.fault()


def test_another_model_than_the_servers_is_refused_on_both_sides(thinwire: Thinwire, tmp_path: Path) -> None:
    with serving(tmp_path / "run") as server:
        mine = ("--task", "digits", "--set", "task.hidden=[16]")
        ended = thinwire("client", "--server", server.address, "--name", "lonely", "--state", "states", *mine)
        told = "client 'lonely' has another model than the server (their layouts differ); give both the same task"
        assert told in server.fault()
    assert ended.code == 2
    assert told in last_line(ended)


def test_a_client_whose_data_are_missing_says_so_on_both_sides(thinwire: Thinwire, tmp_path: Path) -> None:
    with serving(tmp_path / "run") as server:
        mine = ("--task", "idx", "--set", "task.path=nowhere")
        ended = thinwire("client", "--server", server.address, "--name", "lonely", "--state", "states", *mine)
        assert "client 'lonely' cannot take part" in server.fault()
    assert ended.code == 2
    assert "cannot take part" in last_line(ended)


def test_a_server_whose_clients_cannot_take_part_ends_with_the_reason(thinwire: Thinwire, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with fleet(address, tmp_path / "states", {"hidden": [16]}):
        ended = thinwire("server", "--clients", "4", "--set", "task.hidden=[8]", "--address", address)
    assert ended.code == 2
    assert "another model than the server" in last_line(ended)


# -- runs --------------------------------------------------------------------------------------------------------


def test_json_is_one_object_with_the_fixed_keys_and_nothing_else(thinwire: Thinwire, tmp_path: Path) -> None:
    ended = thinwire("simulate", *SMALL, "--participation", "0.67", "--seed", "4", "--out", "run", "--json")
    assert ended.code == 0
    (line,) = ended.out.splitlines()
    found = json.loads(line)
    assert found.keys() >= FIXED_KEYS
    assert (found["method"], found["uplink"], found["rounds"], found["clients"]) == ("ef21", "top-k", 2, 3)
    numel = 64 * 8 + 8 + 8 * 10 + 10
    assert found["dense_bytes"] == 2 * 2 * 2 * 4 * numel  # 2 rounds, 2 clients, 2 ways
    assert 0 < found["uplink_bytes"] < found["dense_bytes"] / 10
    assert 0 <= found["accuracy"] <= 1
    assert found["baseline"].keys() >= FIXED_KEYS
    assert found["baseline"]["method"] == "fedavg"
    assert found["baseline"]["uplink_bytes"] > found["dense_bytes"] / 2
    for folder in (Path(found["run_dir"]), Path(found["baseline"]["run_dir"])):
        assert {"run.toml", "run.sqlite", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    rounds = RunDirectory(tmp_path / "run", durable=False)
    assert sum(row["uplink_bytes"] for row in rounds.rounds()) == found["uplink_bytes"]
    rounds.close()


def test_without_the_baseline_there_is_one_run(thinwire: Thinwire) -> None:
    ended = thinwire("simulate", *SMALL, "--no-baseline", "--json")
    found = json.loads(ended.out)
    assert "baseline" not in found
    assert not (Path(found["run_dir"]) / "fedavg").exists()
    assert Path(found["run_dir"]).parent == Path("runs")


def test_people_get_a_table_with_the_yardstick_beside(thinwire: Thinwire) -> None:
    ended = thinwire("simulate", *SMALL, "--out", "run")
    assert ended.code == 0
    for text in ("dense FedAvg", "ef21", "test accuracy", "times fewer", "run directory: run"):
        assert text in ended.out


def test_set_reaches_every_key_and_flags_drop_the_options_of_what_they_replace(thinwire: Thinwire) -> None:
    arguments = ("--uplink", "natural", "--method", "ef14", "--set", "method.decay=0.5", "--set", "local.rate=0.05")
    ended = thinwire("simulate", *SMALL, *arguments, "--no-baseline", "--out", "run", "--json")
    assert ended.code == 0
    folder = RunDirectory(Path("run"), durable=False)
    config = folder.read_config()
    folder.close()
    assert config["uplink"] == {"name": "natural"}
    assert config["method"] == {"name": "ef14", "decay": 0.5}
    assert config["local"]["rate"] == 0.05


def test_a_run_starts_from_the_weights_of_another(thinwire: Thinwire) -> None:
    assert thinwire("simulate", *SMALL, "--no-baseline", "--out", "first").code == 0
    model = "first/model.safetensors"
    still = ("--set", "local.rate=1e-30", "--set", "local.steps=1")  # nothing moves
    assert thinwire("simulate", *SMALL, *still, "--no-baseline", "--out", "second", "--init", model).code == 0
    before, after = load_file("first/model.safetensors"), load_file("second/model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)


def test_clients_evaluate_on_their_own_examples_weighted_by_their_number(thinwire: Thinwire) -> None:
    arguments = (*SMALL, "--no-baseline", "--set", "task.client_test_fraction=0.25", "--json")
    here = thinwire("simulate", *arguments, "--out", "here", "--set", "evaluation.where=clients")
    both = thinwire("simulate", *arguments, "--out", "both", "--set", "evaluation.where=both")
    none = thinwire("simulate", *arguments, "--out", "none", "--set", "evaluation.where=none")
    last = read_rounds(Path("both"))[-1]
    assert json.loads(here.out)["accuracy"] == last["client_accuracy"]
    assert json.loads(both.out)["accuracy"] == last["accuracy"] != last["client_accuracy"]
    assert json.loads(none.out)["accuracy"] is None
    accuracies = last["client_accuracy"] * held_out(3, 0.25)
    assert accuracies == pytest.approx(round(accuracies), abs=1e-6)  # a whole number of examples is right


def held_out(clients: int, fraction: float) -> int:
    from thinwire.tasks.digits import Digits

    task = Digits(client_test_fraction=fraction)
    own = [task.client_test_examples(index, clients, 0) for index in range(clients)]
    return sum(len(examples) for examples in own if examples is not None)


@pytest.mark.parametrize(
    ("command", "names"), [("compressors", {"top-k", "natural", "rand-k"}), ("methods", {"ef21", "ef14", "fedavg"})]
)
def test_lists_are_for_people_and_for_scripts(command: str, names: set[str], thinwire: Thinwire) -> None:
    rows = json.loads(thinwire(command, "--json").out)
    assert {row["name"] for row in rows} >= names
    assert all(row["summary"] for row in rows)
    table = thinwire(command).out
    assert all(name in table for name in names)


def test_the_version_is_printed(thinwire: Thinwire) -> None:
    assert thinwire("version") == Ended(0, "0.1.0\n", "")
