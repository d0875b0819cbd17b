"""The digits, ten clients with uneven shares, five local steps: what each method costs, and how well it trains.

    python -m benchmarks.digits [--seeds 3] [--rounds 200] [--json] [--out DIR]

Once with all clients in every round and once with half of them. The target: with all of them, EF21 with top-k at 1 %
ends within 2.5 points of dense FedAvg, for at least 50 times fewer bytes up.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from benchmarks.experiments import DENSE, Row, as_json, compared, folder, parser, run, table
from thinwire.run_config import EvaluationConfig, ParticipationConfig, RunConfig

POINTS, TIMES = 2.5, 50.0  # the target


def base(rounds: int, participation: float) -> RunConfig:
    """What all methods have in common."""
    return replace(
        RunConfig(),
        rounds=rounds,
        local={"steps": 5, "rate": 0.1, "batch": 32},
        task={"name": "digits", "hidden": [256, 256], "partition": "dirichlet", "alpha": 0.3},
        participation=ParticipationConfig(fraction=participation),
        evaluation=EvaluationConfig(every=10),
    )


def verdict(rows: Sequence[Row]) -> str:
    """How EF21 with top-k at 1 % stands beside dense FedAvg."""
    dense = next(row for row in rows if row.name == DENSE)
    ours = next(row for row in rows if row.name.startswith("EF21"))
    behind = dense.points - ours.points
    met = behind <= POINTS and ours.times_fewer_up >= TIMES
    return (
        f"{ours.name}: {behind:.2f} points below dense FedAvg (target: at most {POINTS}), "
        f"{ours.times_fewer_up:.0f} times fewer bytes up (target: at least {TIMES:.0f}): {'met' if met else 'missed'}"
    )


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run and print."""
    options = parser("digits", (__doc__ or "").partition("\n")[0]).parse_args(arguments)
    rows: list[Row] = []
    with folder(options.out) as out:
        for fraction in (1.0, 0.5):
            found = list(run(compared(base(options.rounds, fraction)), range(options.seeds), out / f"of-{fraction}"))
            if not options.json:
                who = "all clients" if fraction == 1 else f"{fraction:.0%} of the clients"
                print(f"\n{who} in every round, {options.rounds} rounds, {options.seeds} seeds\n\n{table(found)}")
                print(f"\n{verdict(found)}", flush=True)
            rows += found
    if options.json:
        print(as_json(rows))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
