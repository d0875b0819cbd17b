"""How the defaults of the main job were chosen: without the test examples, with seeds that no other result uses.

    python -m benchmarks.defaults [--seeds 3] [--rounds 200] [--json] [--out DIR]

Every client holds out a fifth of its own share; the accuracy is theirs, weighted by their numbers, with seeds from 100.
One table for the downlink, one for the local work beside dense FedAvg.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from benchmarks.experiments import Row, as_json, folder, parser, run, table
from thinwire.cli.simulation import dense_fedavg
from thinwire.run_config import EvaluationConfig, RunConfig

FIRST_SEED = 100
DOWNLINKS: tuple[dict[str, Any], ...] = (
    {"name": "top-k", "fraction": 0.01},
    {"name": "top-k", "fraction": 0.02},
    {"name": "top-k", "fraction": 0.05},
    {"name": "top-k", "fraction": 0.1},
    {"name": "natural"},
)
LOCAL: tuple[dict[str, Any], ...] = (
    {"steps": 5, "rate": 0.1},
    {"steps": 5, "rate": 0.2},
    {"steps": 10, "rate": 0.1},
    {"steps": 10, "rate": 0.2},
)


def cases(rounds: int) -> dict[str, RunConfig]:
    """Around the defaults, one thing changed at a time."""
    task = {"name": "digits", "client_test_fraction": 0.2}
    base = replace(RunConfig(), rounds=rounds, task=task, evaluation=EvaluationConfig("clients", every=10))
    found = {f"down: {_words(down)}": replace(base, downlink=down) for down in DOWNLINKS}
    for local in LOCAL:
        found[f"{_words(local)}"] = replace(base, local=local)
        found[f"{_words(local)}, dense FedAvg"] = dense_fedavg(replace(base, local=local))
    return found


def _words(options: dict[str, Any]) -> str:
    return " ".join(str(value) if key == "name" else f"{key} {value}" for key, value in options.items())


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run and print."""
    options = parser("defaults", (__doc__ or "").partition("\n")[0]).parse_args(arguments)
    with folder(options.out) as out:
        rows = list(run(cases(options.rounds), range(FIRST_SEED, FIRST_SEED + options.seeds), out))
    print(as_json(rows) if options.json else table(rows).replace("test accuracy", "accuracy on held-out examples"))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
