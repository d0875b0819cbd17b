"""Configuration: the dataclasses themselves, filled from TOML, flags and Flower's run config, checked by pydantic."""

import dataclasses
import difflib
import json
import os
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from thinwire.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'? known: a, b, x`` for an error message."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint or ';'} known: {', '.join(names)}" if names else hint


def build(kind: type[T], options: Mapping[str, Any], where: str, **given: Any) -> T:
    """An instance of a dataclass from options; ``given`` fields are passed as they are and are no options.

    Raises ConfigError for an unknown key (naming the nearest known one) and for a value of a wrong type or range.
    """
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init and f.name not in given}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    values = {}
    for key, value in options.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise ConfigError(f"unknown key {join(where, key)!r}{nearest(name, fields)}")
        values[name] = _field(hints[name], value, join(where, name))
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{join(where, missing[0])!r} is missing")
    try:
        return kind(**values, **given)
    except ValueError as error:  # a __post_init__ that checks ranges
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def _field(hint: Any, value: Any, where: str) -> Any:
    """One value: a nested section, or a plain value checked by pydantic."""
    section = section_of(hint)
    if section is not None and isinstance(value, Mapping):
        return build(section, value, where)
    try:
        return TypeAdapter(hint).validate_python(value)
    except PydanticSchemaGenerationError:
        raise ConfigError(f"{where} is set in code only; remove the key") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where} = {value!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def section_of(hint: Any) -> type | None:
    """The dataclass behind a type hint (also behind ``X | None``), if it is one."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [section_of(arg) for arg in get_args(hint)]
        return next((kind for kind in inner if kind is not None), None)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested options. Raises ConfigError when it is absent or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def set_keys(options: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Options with ``key.path=value`` assignments on top; a value is read as TOML, or else as a plain string."""
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{assignment!r} is not an assignment; write key=value, for example uplink.fraction=0.01")
        options = put(options, key.strip(), _value(text.strip()))
    return options


def put(options: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Options with one dotted key set; the given ones are untouched."""
    head, dot, rest = key.partition(".")
    changed = dict(options)
    if not dot:
        changed[head] = value
        return changed
    inner = changed.get(head, {})
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{head!r} is not a section; {key!r} cannot be set")
    changed[head] = put(inner, rest, value)
    return changed


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options from dotted keys, as in Flower's run config."""
    options: dict[str, Any] = {}
    for key, value in flat.items():
        options = put(options, key, value)
    return options


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options with those of ``above`` winning, key by key."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


OPERATOR = "THINWIRE_OPERATOR_"
"""How the variables begin that say where the operator's commands find a run; they are no keys of one."""


def environment(prefix: str = "THINWIRE_") -> dict[str, Any]:
    """Options from environment variables: ``THINWIRE_UPLINK__FRACTION=0.1`` is ``uplink.fraction = 0.1``."""
    options: dict[str, Any] = {}
    for name, text in sorted(os.environ.items()):
        if name.startswith(prefix) and not name.startswith(OPERATOR):
            options = put(options, name[len(prefix) :].lower().replace("__", "."), _value(text))
    return options


def to_options(value: Any) -> Any:
    """A configuration as nested plain values, for a JSON or TOML file; None is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_options(inner) for name, inner in pairs if inner is not None}
    if isinstance(value, Mapping):
        return {str(name): to_options(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [to_options(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def to_toml(options: Mapping[str, Any], prefix: str = "") -> str:
    """Nested options as TOML text that ``read_toml`` reads back."""
    plain = {k: v for k, v in options.items() if not isinstance(v, Mapping)}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in plain.items()]
    text = (f"[{prefix}]\n" if prefix and lines else "") + "".join(line + "\n" for line in lines)
    for key, value in options.items():
        if isinstance(value, Mapping):
            text += "\n" * bool(text) + to_toml(value, join(prefix, _toml_key(key)))
    return text


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    """TOML differs from JSON in what is not finite, in tables, and in escapes beyond the basic plane."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(inner) for inner in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml_key(key)} = {_toml_value(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def join(where: str, key: str) -> str:
    """``uplink`` and ``fraction`` as ``uplink.fraction``."""
    return f"{where}.{key}" if where else key
