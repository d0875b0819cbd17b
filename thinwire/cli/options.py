"""From files, flags, ``--set`` and the environment to nested options."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from thinwire.config import environment, merge, put, read_toml, set_keys


class EngineName(StrEnum):
    """What plays a simulation."""

    IN_PROCESS = "in-process"
    FLOWER = "flower"


RUN_FLAGS = {"participation": "participation.fraction"}


def run_options(
    file: Path | None,
    flags: Mapping[str, Any],
    names: Mapping[str, str | None],
    assignments: Sequence[str],
    resume: Path | None = None,
) -> dict[str, Any]:
    """Options of a run; later ones win: the resumed run's, the file's, the environment's, flags, ``--set``."""
    options: dict[str, Any] = read_toml(resume / "run.toml") if resume is not None else {}
    if file is not None:
        options = merge(options, read_toml(file))
    options = merge(options, environment())
    for name, value in flags.items():
        if value is not None:
            options = put(options, RUN_FLAGS.get(name, name), value)
    for section, named in names.items():
        if named is not None and _name_of(options.get(section)) != named:
            options[section] = {"name": named}  # options of another compressor, method or task do not apply
    return set_keys(options, assignments)


def client_options(
    file: Path | None, flags: Mapping[str, Any], task: str | None, assignments: Sequence[str]
) -> dict[str, Any]:
    """Options of a client process."""
    options = merge(read_toml(file) if file is not None else {}, environment())
    for name, value in flags.items():
        if value is not None:
            options[name] = value
    if task is not None:
        options = put(options, "task.name", task)
    return set_keys(options, assignments)


def _name_of(section: Any) -> Any:
    return section.get("name") if isinstance(section, Mapping) else section
