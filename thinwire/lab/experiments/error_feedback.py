"""Error feedback: biased compressors converge with it, diverge or stall without it, and take the fewest bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.problems import ridge, top1_example
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Fixed, Settings, Tuned
from thinwire.lab.precision import Single


def cases(settings: Settings) -> Mapping[str, Case]:
    """Three functions on which Top-1 alone diverges, and the ridge."""
    three = Case(lambda seed: top1_example(), 1e-12, 1500)
    if settings.quick:
        return {"three clients": three, "ridge": Case(lambda seed: Single(ridge(seed, 5, 60, 40, 4.0)), 1e-6, 400)}
    return {"three clients": three, "ridge": Case(lambda seed: Single(ridge(seed)), 1e-10, 2000)}


def top_k(fraction: float, values: str = "fp32") -> Mapping[str, Any]:
    """Top-k over the whole vector."""
    return {"name": "top-k", "fraction": fraction, "values": values, "scope": "global"}


def figures(settings: Settings) -> Sequence[Figure]:
    """The example, and the ridge with every step tuned."""
    one, step = top_k(1 / 3), Fixed(0.6, in_1_over_L=True)
    three = (
        Entry("GD", {"name": "fedavg"}, step=step),
        Entry("no feedback, top-1", {"name": "fedavg"}, one, step=step, refused=True),
        Entry("EF14, top-1", {"name": "ef14"}, one, step=step),
        Entry("EF21, top-1", {"name": "ef21"}, one, step=step),
    )
    tenth = top_k(0.1)
    tuned = (
        Entry("GD", {"name": "fedavg"}, step=Tuned()),
        Entry("no feedback, top-k 10 %", {"name": "fedavg"}, tenth, step=Tuned(), refused=True),
        Entry("EF14, top-k 10 %", {"name": "ef14"}, tenth, step=Tuned()),
        Entry("EF21, top-k 10 %", {"name": "ef21"}, tenth, step=Tuned()),
    )
    return (
        Figure("three-clients", "Top-1 on three clients, f_i = <a_i, x>^2 + |x|^2/4", "three clients", three),
        Figure("ridge", "Ridge regression, every step tuned", "ridge", tuned),
    )


EXPERIMENT = Experiment("error-feedback", (__doc__ or "").splitlines()[0], cases, figures)
