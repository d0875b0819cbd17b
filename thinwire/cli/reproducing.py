"""How to run a run again: command lines, made of its configuration and checked against it."""

import hashlib
import shlex
from collections.abc import Mapping
from typing import Any

from server.run_directory import CONFIG, MODEL
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.run_labels import flat
from thinwire.config import set_keys, to_options, to_toml
from thinwire.errors import ThinwireError
from thinwire.run_config import RunConfig

NAMED = {"method": "--method", "uplink": "--uplink", "downlink": "--downlink", "task": "--task"}
FLAGS = {"clients": "--clients", "rounds": "--rounds", "seed": "--seed", "participation.fraction": "--participation"}
MOST_CLIENTS = 4  # that get a line each
CHUNK = 1 << 20


def served(run: RecordedRun) -> bool:
    """Whether its clients were processes of their own."""
    return "server" in run.options


def commands(run: RecordedRun) -> list[tuple[str, str]]:
    """What to do, and the command lines for it."""
    config = shlex.quote(str(run.path / CONFIG))
    if served(run):
        return [
            ("Serve it again, from its configuration", f"thinwire server --config {config} --out AGAIN"),
            ("Its clients, each where its data is", "\n".join(_clients(run))),
        ]
    found = [("Run it again, from its configuration", f"thinwire simulate --config {config} --out AGAIN")]
    alone = spelled_out(run.options)
    return [*found, ("Or from nothing but this line", alone)] if alone else found


def spelled_out(options: Mapping[str, Any]) -> str | None:
    """``thinwire simulate`` with flags that say the whole configuration; None where no flags do."""
    plain = {key: value for key, value in options.items() if key != "server"}
    named = {
        section: plain.get(section, {}).get("name") for section in NAMED if isinstance(plain.get(section), Mapping)
    }
    base: dict[str, Any] = {section: {"name": name} for section, name in named.items() if name}
    try:
        wanted = RunConfig.of(plain)
        keys, present = flat(to_options(wanted)), flat(to_options(RunConfig.of(base)))
        differing = {key: value for key, value in keys.items() if present.get(key) != value or key not in present}
        texts = {key: _text(value) for key, value in differing.items()}
        if RunConfig.of(set_keys(dict(base), [f"{key}={text}" for key, text in texts.items()])) != wanted:
            return None
    except ThinwireError:
        return None  # of another version of Thinwire, or of a task that is not here
    words = ["thinwire simulate", *(f"{NAMED[section]} {shlex.quote(str(named[section]))}" for section in base)]
    for key, text in texts.items():
        words.append(f"{FLAGS[key]} {shlex.quote(text)}" if key in FLAGS else f"--set {shlex.quote(f'{key}={text}')}")
    return " ".join(words)


def model_digest(run: RecordedRun) -> str | None:
    """SHA-256 of the model that came out, in hexadecimal; None while there is none."""
    path = run.path / MODEL
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _clients(run: RecordedRun) -> list[str]:
    """A line for each client; names come from peers, so only plain ones become part of a command."""
    server = run.options["server"]
    tls = " --ca CA.pem --certificate CLIENT.pem --key CLIENT.key" if server.get("certificate") else ""
    tls += " --insecure" if server.get("insecure") else ""
    address = shlex.quote(str(server.get("address", "127.0.0.1:8500")))
    task = f" --task {shlex.quote(run.part('task'))}" if ":" in run.part("task") else ""
    rosters = [event["clients"] for event in run.events if event.get("event") == "roster"]
    names = [str(client.get("name", "")) for client in rosters[-1]] if rosters else []
    plain = [name if _plain(name) else "NAME" for name in names[:MOST_CLIENTS]] or ["NAME"]
    lines = [f"thinwire client --server {address} --name {name}{task}{tls}" for name in plain]
    more = len(names) - len(plain)
    return [*lines, f"# and {more} more, each with its own --name"] if more > 0 else lines


def _plain(name: str) -> bool:
    return bool(name) and not name.startswith("-") and all(c.isascii() and (c.isalnum() or c in "._-") for c in name)


def _text(value: Any) -> str:
    """What ``--set key=`` reads this value from: text stands plain where it is read as text."""
    if isinstance(value, str) and set_keys({}, [f"key={value}"])["key"] == value:
        return value
    return to_toml({"value": value}).removeprefix("value = ").strip()


__all__ = ["commands", "model_digest", "served", "spelled_out"]
