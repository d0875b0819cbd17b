"""Tasks by name: those in this folder, and a user's own by its import path."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thinwire.config import build, nearest
from thinwire.device import seeded
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.tasks.base import Task

RESERVED = ("name", "trainable")  # keys of the section that are no fields of the task


@cache
def registry() -> dict[str, type[Task]]:
    """Name to class, by looking through the files of ``thinwire/tasks/``."""
    found: dict[str, type[Task]] = {}
    for file in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"thinwire.tasks.{file.name}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Task) and "name" in vars(value):
                other = found.setdefault(value.name, value)
                assert other is value, f"two tasks are called {value.name!r}: {other} and {value}"
    return found


def load_task(options: Mapping[str, Any], allowed: Collection[str] | None = None) -> Task:
    """The task of a ``[task]`` section: ``name`` is a registered one or ``package.module:Class``; the rest are fields.

    Import paths run code, so they come from the local machine only: a host that reads options from a peer passes the
    paths that its own configuration names as ``allowed`` (None: any). Raises ConfigError, in one line, for a name that
    is unknown, not allowed or cannot be imported, and for unknown keys and bad values.
    """
    name = options.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"task.name is missing; known: {', '.join(sorted(registry()))}, or package.module:Class")
    if ":" in name:
        if allowed is not None and name not in allowed:
            raise ConfigError(
                f"task {name!r} is not one that this machine's own configuration names; nothing was imported"
            )
        kind = _import(name)
    elif name in registry():
        kind = registry()[name]
    else:
        raise ConfigError(f"unknown task {name!r}{nearest(name, registry())}, or package.module:Class")
    return build(kind, {key: value for key, value in options.items() if key not in RESERVED}, "task")


def trainable_patterns(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The ``trainable`` key of a ``[task]`` section: patterns of parameter names; empty when all are trained."""
    return _checked(options.get("trainable"))


def trainable_layout(model: nn.Module, patterns: Collection[str] | None = None) -> Layout:
    """The layout that trains the parameters whose names match a pattern (``*``, ``?``, ``[...]``); all without any.

    Parameters without ``requires_grad`` stay frozen whatever the patterns say. Raises ConfigError for a pattern that
    matches no trainable parameter, and when nothing is left to train.
    """
    patterns = _checked(patterns)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"task.trainable: no trainable parameter matches {pattern!r}{nearest(pattern, names)}")
    return Layout.of(model, (lambda name: any(fnmatchcase(name, p) for p in patterns)) if patterns else None)


def _checked(patterns: Any) -> tuple[str, ...]:
    """Patterns as a tuple. Raises ConfigError for anything but a list of texts."""
    if patterns is None:
        return ()
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigError(f'task.trainable = {patterns!r} is not a list of name patterns such as ["head.*"]')
    return tuple(patterns)


def initial_model(task: Task, seed: int = 0) -> nn.Module:
    """The task's model with initial weights that follow from the seed; torch's own generator is left as it was."""
    with seeded(Key(seed, "initial model"), torch.device("cpu")):
        return task.model()


def _import(path: str) -> type[Task]:
    """The class of an import path; modules of the current directory can be named."""
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        kind = getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's module may fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(
            f"task {path!r} cannot be imported ({reason}); "
            f"start in the folder that holds {module.partition('.')[0]!r}, or put that folder on PYTHONPATH"
        ) from None
    if not (inspect.isclass(kind) and issubclass(kind, Task)):
        raise ConfigError(f"task {path!r} is no subclass of thinwire.tasks.base.Task")
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"task {path!r} lacks the method(s) {', '.join(missing)}")
    if "__dataclass_fields__" not in vars(kind) or not vars(kind)["__dataclass_params__"].frozen:
        raise ConfigError(f"task {path!r} is no frozen dataclass; write @dataclass(frozen=True) above it")
    return kind
