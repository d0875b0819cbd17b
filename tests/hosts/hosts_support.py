"""What the tests of hosts share: small runs, hosts that play them, and proofs that all ends are in step."""

import json
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.app import respond
from client.desk import Desk
from client.fleet import FleetSession, SessionOptions
from client.store import DiskClientStore, Held, read_committed
from client.workshop import Workshops
from server.app import serve
from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from server.run_directory import RunDirectory
from server.run_store import holds_record, open_run
from strategies.builder import build_method
from thinwire import state
from thinwire.cli.simulation import simulate
from thinwire.errors import ConfigError
from thinwire.random import Key, uniforms
from thinwire.run_config import RunConfig

from flwr.app import Context  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip
from flwr.serverapp import Grid, ServerApp  # isort: skip
from flwr.simulation import run_simulation  # isort: skip

DEADLINE_SECONDS = 60.0
CLIENTS = 4
ROUNDS = 10  # clients that stay warm write their replica every tenth version

SMALL = {"name": "digits", "hidden": [24], "client_test_fraction": 0.2}
BASE: dict[str, Any] = {
    "clients": CLIENTS,
    "rounds": ROUNDS,
    "seed": 3,
    "participation": {"fraction": 0.5},
    "local": {"steps": 3},
    "evaluation": {"where": "both", "every": ROUNDS},
    "checkpoint": {"digest_every": 2},
    "task": SMALL,
}
CASES: dict[str, dict[str, Any]] = {
    "ef21 top-k, natural down": {"method": "ef21", "uplink": {"name": "top-k", "fraction": 0.1}, "downlink": "natural"},
    "ef21 and top-k both ways, float64": {
        "dtype": "float64",
        "method": "ef21",
        "uplink": {"name": "top-k", "fraction": 0.1, "values": "fp32"},
        "downlink": {"name": "top-k", "fraction": 0.2},
    },
    "fedavg, dense": {"method": "fedavg", "uplink": "identity", "downlink": "identity", "local": {"epochs": 1}},
    "ef14 and rand-k": {
        "method": "ef14",
        "uplink": {"name": "rand-k", "fraction": 0.2},
        "downlink": {"name": "top-k", "fraction": 0.2},
        "task": {**SMALL, "dropout": 0.25},
    },
    "a trainable part": {"method": "ef21", "uplink": {"name": "top-k", "fraction": 0.2}, "downlink": "natural"}
    | {"task": {**SMALL, "trainable": ["2.*"]}},
}


def options_of(case: str, tmp: Path, **more: Any) -> dict[str, Any]:
    """The options of a case. A trainable part starts from weights that only the server has."""
    options = {**BASE, **CASES[case], **more}
    if "trainable" in options["task"]:
        options["init"] = str(trained_elsewhere(tmp))
    return options


def trained_elsewhere(tmp: Path) -> Path:
    """A model of the small task that no client has."""
    config = RunConfig.of({**BASE, "rounds": 1, "seed": 99, "evaluation": {"where": "none"}})
    return simulate(config, tmp / "elsewhere").run_dir / "model.safetensors"


def images(folder: Path) -> Path:
    """A folder of IDX files: 96 images for training and 32 for the test, of 8 x 8 pixels, in 4 classes."""
    folder.mkdir()
    for name, count in (("train", 96), ("t10k", 32)):
        labels = np.arange(count) % 4
        noise = uniforms(Key(7, name), count * 64).reshape(count, 8, 8)
        pixels = (60 * labels[:, None, None] * (noise > 0.5) + 40 * noise).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels.astype(np.uint8))):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return folder


# The client's path differs from the server's: each machine names its own.
PICTURES = {"name": "idx", "size": [8, 8], "classes": 4, "channels": [3, 4], "norm": "batch", "partition": "iid"}
PICTURES |= {"client_test_fraction": 0.25}


def picture_options(folder: Path) -> dict[str, Any]:
    """A convolutional network with BatchNorm, whose buffers travel beside the method."""
    return {**BASE, **CASES["ef21 top-k, natural down"], "task": {**PICTURES, "path": str(folder)}}


# -- hosts -------------------------------------------------------------------------------------------------------


def flat(options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted keys."""
    keys: dict[str, Any] = {}
    for key, value in options.items():
        keys |= flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return keys


def run_config(options: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The options as Flower's run config carries them: all in the one key ``set``."""
    return {"set": "; ".join(f"{k}={json.dumps(v)}" for k, v in flat(options).items()), "out": str(out)}


def in_process(options: Mapping[str, Any], out: Path) -> bytes:
    """The model of ``thinwire simulate``."""
    return model_of(simulate(RunConfig.of(options), out).run_dir)


def on_grid(grid: Any, options: Mapping[str, Any], out: Path) -> bytes:
    """The model of a ServerApp on a grid."""
    serve(grid, run_config(options, out))
    return model_of(out)


def on_fleet(options: Mapping[str, Any], out: Path, states: Path, task: Mapping[str, Any] | None = None) -> bytes:
    """The model of a fleet over gRPC on loopback: a session in a thread for each client, each with its own model."""
    with FleetGrid(FleetOptions(address="127.0.0.1:0"), run_id=11) as grid, fleet(grid.address, states, task or {}):
        model = on_grid(grid, options, out)
        grid.finish()
    return model


@contextmanager
def fleet(address: str, states: Path, task: Mapping[str, Any], token: str = "") -> Iterator[None]:
    """Clients in threads, with their states on disk."""

    def desk(name: str) -> Desk:
        return Desk(name, "", Workshops(task, "cpu").open, lambda run: DiskClientStore(states, run, name))

    with at_desks(address, [desk(f"client-{index}") for index in range(CLIENTS)], token):
        yield


@contextmanager
def at_desks(address: str, desks: Sequence[Desk], token: str = "") -> Iterator[None]:
    """A session in a thread for each desk; one computes at a time, for torch's generators belong to the process."""
    turn = threading.Lock()

    def session(desk: Desk) -> FleetSession:
        def app(message: Any, context: Any) -> Any:
            with turn:
                return respond(desk, message)

        return FleetSession(SessionOptions(address, desk.name, token, first_wait_seconds=0.02), app)

    def take_part(one: FleetSession) -> None:
        with suppress(ConfigError):  # a server that refuses a client says so itself
            one.run_forever()

    sessions = [session(desk) for desk in desks]
    threads = [threading.Thread(target=take_part, args=(one,)) for one in sessions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for one in sessions:
            one.stop()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)


def on_ray(client_app: ClientApp, runs: Mapping[Path, Mapping[str, Any]]) -> list[bytes]:
    """The models of several runs, run directory -> options, one after the other on one start of Flower's Ray engine."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        for out, options in runs.items():
            serve(grid, run_config(options, out))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, and Flower's on this entry to its engine
        run_simulation(server_app, client_app, CLIENTS, backend_config={"client_resources": {"num_cpus": 1.0}})
    return [model_of(out) for out in runs]


def model_of(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def in_step(run: Path, states: Path) -> None:
    """Every client's disk holds the server's replica and the state that the server's mirror is of, bit for bit."""
    folder = RunDirectory(run, mirrors=(run / "mirrors").exists())
    try:
        loaded = folder.load()
        assert loaded is not None
        saved = loaded[0]
        options = folder.read_config()
        config = RunConfig.of({key: value for key, value in options.items() if key != "server"})
        method = build_method(config.method, config.uplink, config.downlink, config.optimiser)
        assert method.mirrored == folder.mirrors
        names = sorted(path.name for path in (states / saved.run).iterdir())
        assert names == [client.name for client in saved.clients]
        for index, client in enumerate(saved.clients):
            store = DiskClientStore(states, saved.run, client.name)
            held = store.read("replica")
            assert isinstance(held, Held)
            assert (held.version, held.history) == (saved.round, saved.history)
            assert state.digest(held.replica) == state.digest(saved.replica)
            if client.fresh and method.mirrored:
                continue  # never took part
            kept = [s for s in (read_committed(store), store.read("pending")) if s is not None]
            own = [s.private for s in kept if s.chain == client.chain]
            assert own, f"{client.name} holds no state that the server knows"
            if folder.mirrors:
                mirror, private = folder.read_mirror(index, client.chain), method.mirror(own[0])
                assert mirror is not None
                assert private is not None
                assert torch.equal(mirror, private)
    finally:
        folder.close()


def events_of(run: Path, kind: str) -> list[dict[str, Any]]:
    return open_run(run).events(kinds=[kind]) if holds_record(run) else []


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """The condition's first true value; looks at files and processes, which tell nobody when they change."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        time.sleep(0.01)
    return value
