"""Ridge regression: shifted compression converges to the minimiser where compressed gradients alone stop short."""

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.problems import ridge
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Settings, Theory, Tuned
from thinwire.lab.precision import Single


def cases(settings: Settings) -> Mapping[str, Case]:
    """The paper's ridge: 10 clients, 100 x 80; a small one when quick."""
    if settings.quick:
        return {"ridge": Case(lambda seed: Single(ridge(seed, 5, 60, 40, 4.0)), 1e-6, 600)}
    return {"ridge": Case(lambda seed: Single(ridge(seed)), 1e-10, 8000)}


def rand_k(fraction: float, values: str = "fp32") -> Mapping[str, Any]:
    """Rand-k over the whole vector."""
    return {"name": "rand-k", "fraction": fraction, "values": values, "scope": "global"}


def figures(settings: Settings) -> Sequence[Figure]:
    """One for each k."""
    found = []
    for fraction in (0.1, 0.5):
        up = rand_k(fraction)
        entries = (
            Entry("GD", {"name": "fedavg"}, step=Tuned()),
            Entry(f"EF21, rand-k {fraction:g}", {"name": "ef21"}, up, step=Tuned()),
            Entry(f"EF21 theory, rand-k {fraction:g}", {"name": "ef21"}, up, step=Theory()),
        )
        found.append(Figure(f"rand-k-{fraction:g}", f"Ridge, rand-k {fraction:.0%}", "ridge", entries))
    return found


EXPERIMENT = Experiment("ridge", (__doc__ or "").splitlines()[0], cases, figures)
