"""The constants of a run's task, estimated from its clients' gradients, and the step that theory makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from client.local import LocalOptions
from strategies.base import Federation
from strategies.builder import build_method
from strategies.constants import estimate
from strategies.theory import Constants, Theory
from thinwire.config import build
from thinwire.device import set_threads
from thinwire.errors import ConfigError
from thinwire.lab.network import NetworkProblem
from thinwire.run_config import RunConfig
from thinwire.tasks import load_task
from thinwire.tasks.registry import trainable_patterns

MEANINGS: Mapping[str, str] = {
    "L": "smoothness of f, the mean over all examples",
    "L_max": "of the most curved client",
    "L_mean": "root of the mean square over the clients",
    "mu": "strong convexity; 0: none that stands out of rounding",
    "heterogeneity": "how far the clients' gradients differ where f is least: (1/n) sum |grad f_i|^2",
}


@dataclass(frozen=True)
class Estimated:
    """Constants of a configuration's task, with its method's theory for full gradients."""

    config: RunConfig
    constants: Constants
    theory: Theory | None
    silence: str = ""  # why there is no theory

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        theory = self.theory
        return {
            "task": self.config.task.get("name"),
            "clients": self.config.clients,
            "seed": self.config.seed,
            **vars(self.constants),
            "kappa": self.constants.kappa if self.constants.mu else None,
            "method": self.config.method["name"],
            "step": None if theory is None else theory.rate,
            "promise": None if theory is None else theory.promise.value,
        }

    def table(self) -> Table:
        """For people."""
        table = Table(title_justify="left", title=f"{self.config.task.get('name')}, {self.config.clients} clients")
        for column in ("", "value", "what it is"):
            table.add_column(column)
        for name, meaning in MEANINGS.items():
            table.add_row(name, f"{getattr(self.constants, name):.4g}", meaning)
        if self.constants.mu:
            table.add_row("kappa", f"{self.constants.kappa:.4g}", "L / mu")
        name = str(self.config.method["name"])
        step = f"{self.theory.rate:.3g}" if self.theory is not None else "-"
        promise = f"promises: {self.theory.promise.value}" if self.theory is not None else self.silence
        table.add_row(f"step of {name}", step, f"of its theory, for full gradients; {promise}")
        return table


def estimate_constants(config: RunConfig) -> Estimated:
    """Of the task, the clients' shares and the seed of a configuration. Raises ConfigError.

    In float64, for a small mu drowns in the rounding of float32 gradients; buffers stay as they are at the start.
    """
    set_threads(config.threads)
    local = build(LocalOptions, config.local, "local")
    task, patterns = load_task(config.task), trainable_patterns(config.task)
    problem = NetworkProblem(task, config.clients, local, config.seed, torch.float64, patterns)
    constants = estimate(problem.oracles, problem.x0, weights=problem.weights, seed=config.seed)
    federation = Federation(problem.layout, config.clients, config.seed, torch.float64, problem.weights)
    method = build_method(config.method, config.uplink, config.downlink, config.optimiser, local.work)
    try:
        return Estimated(config, constants, method.theory(constants, federation, config.participation.fraction))
    except ConfigError as silence:
        return Estimated(config, constants, None, str(silence))
