"""What of a run's configuration may be changed while it runs, and what may not."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from strategies.base import Method
from strategies.optimiser import SGD
from thinwire.config import set_keys, to_options
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig

CHANGEABLE: Mapping[str, str] = {
    "rounds": "the number of rounds",
    "participation.fraction": "the share of the clients that a round asks",
    "round.deadline_seconds": "how long a round waits for answers",
    "round.patience_seconds": "how long it waits for a client that is away",
    "round.minimum_replies": "fewer answers, and it is repeated",
    "round.retries": "how often it is repeated",
    "evaluation.every": "rounds between two evaluations",
    "optimiser.rate": "the server's step",
    "local.rate": "the clients' local step",
}
"""Keys that may be changed between two rounds."""

FROM_ZERO = ("round.retries", "round.patience_seconds")  # the others are above 0
MOST = 1_000_000_000


def changed(config: RunConfig, keys: Mapping[str, str], decided: int) -> RunConfig:
    """The configuration with other values. ``decided``: rounds that are over. Raises ConfigError."""
    if not keys:
        raise ConfigError(f"nothing to change; allowed: {', '.join(CHANGEABLE)}")
    for key in keys:
        if key not in CHANGEABLE:
            raise ConfigError(f"{key!r} cannot be changed while a run runs; allowed: {', '.join(CHANGEABLE)}")
    options = set_keys(to_options(config), [f"{_named(config, key)}={value}" for key, value in keys.items()])
    found = RunConfig.of(options)
    if found.rounds < decided:
        raise ConfigError(f"rounds = {found.rounds}: round {decided} is decided already")
    for key in keys:
        _check_number(key, value_of(found, key))
    return found


def value_of(config: RunConfig, key: str) -> Any:
    """What a dotted key is set to; None where it is not."""
    value: Any = to_options(config)
    for part in _named(config, key).split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def check_step_alone(before: Method, after: Method) -> None:
    """Refuse a method that differs in more than the server's step. Raises ConfigError.

    All else is agreed upon: clients, and downlinks and journals that are replayed, go by the rules as they were.
    """
    if _without_step(before) != _without_step(after):
        raise ConfigError(
            f"method {before.name}: this change is part of what all nodes replay, and can only be made in a new run"
        )


def _without_step(method: Method) -> Method:
    """The method with the same server optimiser for all, where it has one."""
    given: dict[str, Any] = {}
    for field in fields(method):
        value = getattr(method, field.name)
        if field.name == "optimiser":
            given[field.name] = SGD()
        elif isinstance(value, Method):
            given[field.name] = _without_step(value)
    return replace(method, **given)


def _named(config: RunConfig, key: str) -> str:
    """``optimiser.lr`` where the run calls its rate so."""
    return "optimiser.lr" if key == "optimiser.rate" and "lr" in config.optimiser else key


def _check_number(key: str, value: Any) -> None:
    """What the sections of a run do not check of themselves: rates, and what is far beyond any use."""
    least = 0.0 if key in FROM_ZERO else math.ulp(0.0)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= MOST:
        raise ConfigError(f"{key} = {value!r} must be a number {'from' if not least else 'above'} 0, up to {MOST:,}")
