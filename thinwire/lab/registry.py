"""Every experiment by name: the files of ``thinwire/lab/experiments/``."""

import importlib
import pkgutil
from functools import cache

from thinwire.config import nearest
from thinwire.errors import ConfigError
from thinwire.lab import experiments
from thinwire.lab.experiment import Experiment


@cache
def registry() -> dict[str, Experiment]:
    """Name to experiment, in alphabetical order."""
    found: dict[str, Experiment] = {}
    for module in pkgutil.iter_modules(experiments.__path__):
        experiment = importlib.import_module(f"{experiments.__name__}.{module.name}").EXPERIMENT
        assert experiment.name not in found, f"two experiments are called {experiment.name!r}"
        found[experiment.name] = experiment
    return dict(sorted(found.items()))


def find(name: str) -> Experiment:
    """The experiment of that name. Raises ConfigError naming the nearest known one."""
    if name not in registry():
        raise ConfigError(f"unknown experiment {name!r}{nearest(name, registry())}")
    return registry()[name]
