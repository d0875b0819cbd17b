"""What a run of many clients takes where it names nothing: a downlink for clients that return late, shared examples."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from strategies.estimator import Estimator
from strategies.registry import find_method
from thinwire.errors import ConfigError
from thinwire.presets import expand
from thinwire.run_config import RunConfig
from thinwire.tasks.registry import load_task

SELDOM = 50
"""Rounds from one question to a client to its next, in the mean, from which the model itself is sent.

A client that returns is sent the downlinks that it missed, or a snapshot (32 bits an entry), whichever is fewer. The
top-k downlink of a run takes 0.13 to 0.15 bits an entry, so that 55 to 60 missed ones are as many as the model in 8
bits; and whoever is asked for the first time, as most of thousands of clients are in most runs, has nothing to add
them to.
"""
DIRECT: Mapping[str, Any] = {"name": "blockwise-8bit", "channel": "direct"}


def with_cohort(options: Mapping[str, Any], cohort: int | None, participation: float | None) -> dict[str, Any]:
    """The options with ``participation.fraction`` such that ``cohort`` clients are asked. Raises ConfigError."""
    if cohort is None:
        return dict(options)
    if participation is not None:
        raise ConfigError("--cohort and --participation say the same thing; give one of them")
    clients = options.get("clients", RunConfig().clients)
    if not isinstance(clients, int) or not 1 <= cohort <= clients:
        raise ConfigError(f"--cohort {cohort} is not in 1 to {clients}, the number of clients")
    section = options.get("participation", {})
    return {**options, "participation": {**section, "fraction": cohort / clients}}


def fitted(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options with what they leave open chosen for many clients, and a line for each choice.

    A run in which a client is asked in fewer than one round of ``SELDOM`` and that names no downlink sends the model in
    8 bits. A task of ours that has fewer examples than there are clients, and whose partition is not named, lets
    clients share examples.
    """
    notes: list[str] = []
    config = RunConfig.of(options)
    chosen = dict(options)
    asked = config.participation.cohort(config.clients)
    if "downlink" not in expand(options) and asked * SELDOM < config.clients and _has_channel(config):
        chosen["downlink"] = dict(DIRECT)
        notes.append(
            f"downlink: the model in 8 bits (blockwise-8bit, channel direct), for a client is asked once in "
            f"{config.clients / asked:.0f} rounds and would miss too much of a compressed difference; --downlink "
            "names another"
        )
    if _too_few_examples(config):
        chosen["task"] = {**config.task, "partition": "drawn"}
        notes.append(
            f"examples: clients draw theirs from a pool that they share (task.partition = drawn), for there are "
            f"fewer than {config.clients}"
        )
    return chosen, notes


def _has_channel(config: RunConfig) -> bool:
    """Whether the method's downlink is a channel of our choice."""
    kind = find_method(str(config.method["name"]))
    return issubclass(kind, Estimator) or "channel" in {field.name for field in dataclasses.fields(kind)}


def _too_few_examples(config: RunConfig) -> bool:
    """Whether the task could let clients share examples, was not told how to divide them, and has too few for that."""
    if "partition" in config.task:
        return False
    task: Any = load_task(config.task, [str(config.task.get("name", ""))])
    if not {"partition", "drawn"} <= {field.name for field in dataclasses.fields(task)}:
        return False
    return len(dataclasses.replace(task, partition="all").train_examples(0, 1, config.seed)) < config.clients
