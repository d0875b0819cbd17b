"""Images in IDX files (10,000 or more of MNIST, say) and a small convolutional network; half of ten clients a round.

    python -m benchmarks.idx --path FOLDER [--seeds 3] [--rounds 100] [--json] [--out DIR]

The main job on real images: ten local steps, dense FedAvg beside EF21 with top-k at 1 %. Says so and ends where the
folder holds no IDX files.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from benchmarks.experiments import DENSE, Row, as_json, compared, folder, parser, run, table
from thinwire.run_config import EvaluationConfig, RunConfig

SHOWN = (DENSE, "EF21, top-k 1 % up", "EF21, top-k 1 % up and down")


def base(path: Path, rounds: int) -> RunConfig:
    """The main job, on these images."""
    task = {"name": "idx", "path": str(path), "partition": "dirichlet", "alpha": 0.3}
    return replace(RunConfig(), rounds=rounds, task=task, evaluation=EvaluationConfig(every=10))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run and print."""
    known = parser("idx", (__doc__ or "").partition("\n")[0])
    known.add_argument("--path", type=Path, default=Path("data"), help="folder with IDX files, .gz or not")
    known.set_defaults(rounds=100)
    options = known.parse_args(arguments)
    if not any(options.path.glob("*idx*")):
        print(f"skipped: {options.path} holds no IDX files; name a folder that does with --path", file=sys.stderr)
        return []
    with folder(options.out) as out:
        cases = compared(base(options.path.absolute(), options.rounds))
        rows = list(run({name: cases[name] for name in SHOWN}, range(options.seeds), out))
    if options.json:
        print(as_json(rows))
    else:
        print(f"half of ten clients in every round, {options.rounds} rounds, {options.seeds} seeds\n\n{table(rows)}")
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
