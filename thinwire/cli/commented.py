"""Configuration files with every key, what it means and its default, from the dataclasses that read them.

A key that the file sets stands as it is; a key that is only offered has a ``#`` right before it.
"""

import dataclasses
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import compressors
from client.local import LocalOptions
from client.settings import ClientSettings
from strategies.builder import CHANNELS
from strategies.optimiser import SGD
from strategies.ordered import OrderOptions
from strategies.registry import find_method
from thinwire.cli.explaining import meanings
from thinwire.cli.method_facts import BUILT
from thinwire.cli.serving import ServerConfig
from thinwire.config import section_of, to_options, to_toml
from thinwire.run_config import RunConfig
from thinwire.simulation.availability import AVAILABILITIES
from thinwire.simulation.speed import SPEEDS
from thinwire.tasks.registry import registry as tasks

WIDTH = 100  # of a line; what is longer has its comment above

NAMED: Mapping[str, str] = {
    "method": "How clients and server use what travels; `thinwire methods` lists the names, `thinwire methods NAME` "
    "explains one.",
    "uplink": "What compresses from client to server; `thinwire compressors` lists the names.",
    "downlink": "What compresses from server to client; identity is dense.",
    "optimiser": "What the server does with the clients' average: sgd, another of torch.optim by name, or an adaptive "
    "rule (fedadam, fedyogi, fedadagrad, fedams).",
    "local": "What a client does in a round.",
    "task": "Model, data and loss: one of thinwire's own, or yours as package.module:Class.",
    "order": "In which order a client goes through its examples; only random is free of charge.",
}
"""What a section is whose keys are those of the part that it names."""

MODELS: Mapping[str, tuple[Iterable[str], str]] = {
    "availability": (AVAILABILITIES, "always"),
    "speed": (SPEEDS, "constant"),
}
"""The parts of the section ``simulation``, which are named but mostly absent: their names, and one to offer."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One line of the file."""

    name: str
    value: Any
    meaning: str
    set: bool  # or only offered

    def lines(self) -> Iterator[str]:
        """The key with its comment behind it, or above it where that is long."""
        plain = to_toml({self.name: self.value}).rstrip("\n")
        line = plain if self.set else f"#{plain}"
        if not self.meaning:
            yield line
        elif len(line) + len(self.meaning) + 4 <= WIDTH:
            yield f"{line}  # {self.meaning}"
        else:
            yield f"# {self.meaning}"
            yield line


def run_toml(options: Mapping[str, Any] | None = None) -> str:
    """A run.toml of ``options`` over the defaults; read back, it is ``RunConfig.of(options)``."""
    config = RunConfig.of(options or {})
    head = "A run: `thinwire simulate -c run.toml` in one process, `thinwire server -c run.toml` for real clients."
    parts = [*_head(head), *_lines(_plain(RunConfig, to_options(config)))]
    for field in dataclasses.fields(RunConfig):
        value = getattr(config, field.name)
        if field.name in NAMED:
            parts += _section(field.name, NAMED[field.name], _named(field.name, value))
        elif dataclasses.is_dataclass(value):
            parts += _of(field.name, type(value), to_options(value))
    parts += _of("server", ServerConfig, to_options(ServerConfig()), "Where `thinwire server` listens, and for whom.")
    return "\n".join(parts) + "\n"


def client_toml(options: Mapping[str, Any] | None = None) -> str:
    """A client.toml of ``options`` over the defaults; read back, it is ``settings_of(options)``."""
    given = options or {}
    keys = [
        dataclasses.replace(key, set=key.set and (key.name != "name" or "name" in given))
        for key in _plain(ClientSettings, {**to_options(ClientSettings()), **given})
    ]
    head = "A client: `thinwire client -c client.toml`. Local things only; all about the run comes from the server."
    about = "What is local of the task: its import path where it is your own, the folder of its data, ..."
    task = dict(given.get("task", {}))
    offered = {"name": "package.module:Class", "path": "FOLDER"}
    found = [Key(name, task.get(name, value), "", name in task) for name, value in {**offered, **task}.items()]
    return "\n".join([*_head(head), *_lines(keys), *_section("task", about, found)]) + "\n"


def _head(first: str) -> list[str]:
    return [
        f"# {first}",
        "# Every key is here with its default. A key with a # right before it is not set; remove the # to set it.",
        "",
    ]


def _of(name: str, kind: type, values: Mapping[str, Any], about: str = "") -> Iterator[str]:
    """The section of a dataclass, and those of the dataclasses in it."""
    yield from _section(name, about or (kind.__doc__ or "").strip().splitlines()[0], _plain(kind, values))
    for key, hint in get_type_hints(kind).items():
        inner = section_of(hint)
        if inner is not None:
            yield from _of(f"{name}.{key}", inner, values.get(key, {}))
        elif key in MODELS:
            names, usual = MODELS[key]
            keys = [Key(part, value, "", True) for part, value in values.get(key, {}).items()]
            about = _meaning(meanings(kind), key, hint)
            yield from _section(f"{name}.{key}", about, keys or [Key("name", usual, " | ".join(names), False)])


def _section(name: str, about: str, keys: Iterable[Key]) -> Iterator[str]:
    yield ""
    yield from wrap(about, WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield f"[{name}]"
    yield from _lines(keys)


def _lines(keys: Iterable[Key]) -> Iterator[str]:
    for key in keys:
        yield from key.lines()


def _plain(kind: type, values: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of a dataclass that are no sections; one that ``values`` lack is only offered."""
    hints, comments = get_type_hints(kind), meanings(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if not field.init or section_of(hint) is not None or _is_mapping(hint):
            continue
        value = values.get(field.name)
        if field.name not in values and field.default is not dataclasses.MISSING:
            value = to_options(field.default)
        shown = _placeholder(hint) if value is None else value
        yield Key(field.name, shown, _meaning(comments, field.name, hint), field.name in values and value is not None)


def _named(section: str, options: Mapping[str, Any]) -> Iterator[Key]:
    """The name and the options of a part: set where the configuration has them, else offered."""
    kind = _kind(section, options)
    given = {name.replace("-", "_"): value for name, value in options.items()}
    if "name" in given:
        yield Key("name", given["name"], _choices(section, kind), True)
    known = {"name", *(BUILT if section == "method" else ())}
    if kind is not None:
        for key in _plain(kind, given):
            if key.name not in known:
                known.add(key.name)
                yield key
    if section == "downlink":
        known.add("channel")
        value = given.get("channel", "dense" if given.get("name") == "identity" else "ef21-p")
        meaning = f"how the model reaches the clients: {' | '.join(CHANNELS)}"
        yield Key("channel", value, meaning, "channel" in given)
    if section == "task":
        meaning = 'train only the parameters of these names: ["head.*"]; the others stay as they are'
        yield Key("trainable", given.get("trainable", ["*"]), meaning, "trainable" in given)
        known.add("trainable")
    yield from (Key(name, value, "", True) for name, value in given.items() if name not in known)


def _kind(section: str, options: Mapping[str, Any]) -> type | None:
    """The dataclass whose fields are a section's options; None for a part that is not ours."""
    name = str(options.get("name", ""))
    if section == "method":
        return find_method(name)
    if section in ("uplink", "downlink"):
        return compressors.find(name)
    if section == "task":
        return tasks().get(name)
    if section == "optimiser":
        return SGD if name == "sgd" else None
    return {"local": LocalOptions, "order": OrderOptions}[section]


def _choices(section: str, kind: type | None) -> str:
    """The names that a section takes, where they are few."""
    if section == "task":
        return " | ".join([*sorted(tasks()), "package.module:Class"])
    if section == "order" and kind is not None:
        return _words(get_type_hints(kind)["name"])
    return ""


def _meaning(comments: Mapping[str, str], name: str, hint: Any) -> str:
    """The comment behind the field, and the values where they are few."""
    return "; ".join(part for part in (comments.get(name, "").replace("``", "`"), _words(hint)) if part)


def _words(hint: Any) -> str:
    return " | ".join(str(value) for value in get_args(hint)) if get_origin(hint) is Literal else ""


def _is_mapping(hint: Any) -> bool:
    return (get_origin(hint) or hint) in (dict, Mapping)


def _placeholder(hint: Any) -> Any:
    """A value of the right type, for a key that has none."""
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    if get_origin(hint) in (Union, types.UnionType) and inner:
        return _placeholder(inner[0])
    if get_origin(hint) is tuple:
        return [_placeholder(inner[0])]
    return {Path: "FILE", str: "NAME", int: 0, float: 0.0, bool: False}.get(hint, "VALUE")
