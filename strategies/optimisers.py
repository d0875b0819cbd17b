"""Server optimisers by name: what the server does with the aggregated direction."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from strategies.adaptive import RULES, Adaptive
from strategies.optimiser import SGD, Optimiser
from strategies.prox import build_prox
from strategies.torch_optimiser import TorchMemory, TorchOptimiser, torch_optimisers
from thinwire.config import build, nearest
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout

__all__ = ["SGD", "Adaptive", "Optimiser", "TorchMemory", "TorchOptimiser", "build_optimiser", "torch_optimisers"]


def build_optimiser(options: Mapping[str, Any], where: str = "optimiser") -> Optimiser:
    """The optimiser of ``{"name": ..., "rate": ..., ...}``; ``sgd`` of rate 1 without options.

    The names are those of ``torch.optim`` and the rules of ``strategies.adaptive``. ``rate`` is torch's ``lr``; every
    other key is passed on as it is. Plain ``sgd`` also takes a ``prox``, as ``strategies.prox.build_prox`` reads it.
    Raises ConfigError on an unknown name or key, naming the nearest known one, and on a bad value.
    """
    values = {key.replace("-", "_"): value for key, value in options.items()}
    name = str(values.pop("name", "sgd")).lower()
    prox = build_prox(values.pop("prox", None), f"{where}.prox")
    if prox is not None and not (name == "sgd" and set(values) <= {"rate", "lr"}):
        raise ConfigError(f"{where}.prox needs plain sgd, a name and a rate and nothing else")
    if "lr" in values and "rate" in values:
        raise ConfigError(f"{where}.lr and {where}.rate are the same; give one of them")
    if "lr" in values:
        values["rate"] = values.pop("lr")
    if name in RULES:
        return build(Adaptive, values, where, rule=name)
    if name not in torch_optimisers():
        raise ConfigError(f"unknown {where} {name!r}{nearest(name, [*torch_optimisers(), *RULES])}")
    kind = torch_optimisers()[name]
    known = {*inspect.signature(kind).parameters, "rate"} - {"params", "lr"}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {f'{where}.{key}'!r}{nearest(key, known)}")
    if name == "sgd":
        values.setdefault("rate", 1.0)
    try:
        if name == "sgd" and set(values) == {"rate"}:
            return SGD(float(values["rate"]), prox)
        return _tried(TorchOptimiser(kind, tuple(sorted(torch_options(values).items()))))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where} {name!r}: {error}") from None


def torch_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """``rate`` as ``lr``, lists as tuples."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return {("lr" if key == "rate" else key): value for key, value in plain.items()}


def _tried(optimiser: TorchOptimiser) -> TorchOptimiser:
    """The optimiser after one step on a small matrix, so that a bad value is found when the run is built."""
    layout = Layout((Entry("probe", (2, 2)),))
    optimiser.step(torch.ones(4), torch.ones(4), optimiser.begin(layout), layout)
    return optimiser
