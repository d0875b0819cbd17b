"""Every method by name: the estimators and whole methods of the modules in this folder that carry one."""

import importlib
import inspect
import pkgutil
from functools import cache

import strategies
from strategies.base import Method
from strategies.descent import Descent
from strategies.estimator import Estimator
from strategies.ordered import Ordered
from thinwire.config import nearest
from thinwire.errors import ConfigError
from thinwire.presets import PRESETS

HOSTS = frozenset({"flower", "grid_transport", "coordinator", "compressed", "compressed_grid"})
"""Modules that run methods and define none; not imported to look for one."""


@cache
def registry() -> dict[str, type[Estimator] | type[Method]]:
    """Name to class, by looking through the files of ``strategies/``."""
    found: dict[str, type[Estimator] | type[Method]] = {}
    for module in pkgutil.iter_modules(strategies.__path__):
        if module.name in HOSTS:
            continue
        for value in vars(importlib.import_module(f"strategies.{module.name}")).values():
            if inspect.isclass(value) and issubclass(value, (Estimator, Method)) and "name" in vars(value):
                other = found.setdefault(value.name, value)
                assert other is value, f"two methods are called {value.name!r}: {other} and {value}"
    for frame in (Descent, Ordered):  # a frame of estimators, one of methods: no methods of their own
        del found[frame.name]
    return found


def method_names() -> tuple[str, ...]:
    """The names that ``method.name`` may take."""
    return tuple(sorted(registry()))


def find_method(name: str) -> type[Estimator] | type[Method]:
    """The class of that name. Raises ConfigError naming the nearest known one."""
    if name in PRESETS:
        raise ConfigError(f"{name!r} is no method but a preset of a whole run: RunConfig.of expands it")
    if name not in registry():
        raise ConfigError(f"unknown method {name!r}{nearest(name, [*registry(), *PRESETS])}")
    return registry()[name]
