"""Local training: FedAvg's local steps drift to a point of their own, SCAFFOLD's do not, compressed or not.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: stochastic controlled averaging for federated learning", ICML
2020, https://arxiv.org/abs/1910.06378; on the ridge, whose minimiser is known, with full gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from strategies.problems import ridge
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Fixed, Settings, Tuned
from thinwire.lab.precision import Single

STALLED = 500  # rounds that show a floor
UPDATES = Fixed(1.0)  # the server's rate on updates: plain federated averaging
GRADIENTS = Tuned(0.5)


def problem(settings: Settings, seed: int, steps: int) -> Single:
    """The ridge, whose clients take so many steps of half of 1/L_max."""
    found = ridge(seed, 4, 40, 30, 4.0) if settings.quick else ridge(seed)
    rate = 0.5 / found.L_max
    return Single(replace(found, oracles=tuple(replace(o, steps=steps, rate=rate) for o in found.oracles)))


def cases(settings: Settings) -> Mapping[str, Case]:
    """One for each number of local steps."""
    target, rounds = (1e-5, 200) if settings.quick else (1e-10, 1500)
    return {
        f"{steps} steps": Case(lambda seed, steps=steps: problem(settings, seed, steps), target, rounds)  # type: ignore[misc]
        for steps in counts(settings)
    }


def counts(settings: Settings) -> tuple[int, ...]:
    """Of local steps."""
    return (5,) if settings.quick else (5, 20)


def sparse(name: str, fraction: float = 0.1) -> Mapping[str, Any]:
    """Over the whole vector, float32 values."""
    return {"name": name, "fraction": fraction, "values": "fp32", "scope": "global"}


def family(settings: Settings) -> tuple[Entry, ...]:
    """Gradient descent; local steps without and with correction; the same compressed."""
    found = (
        Entry("GD", {"name": "fedavg"}, step=Tuned()),
        Entry("FedAvg", {"name": "fedavg"}, step=UPDATES, work="steps", most_rounds=STALLED),
        Entry(
            "EF21 of updates, top-k 10 %",
            {"name": "ef21"},
            sparse("top-k"),
            step=UPDATES,
            work="steps",
            most_rounds=STALLED,
        ),
        Entry("SCAFFOLD", {"name": "scaffold"}, step=GRADIENTS),
        Entry("SCAFFOLD, top-k 10 %", {"name": "scaffold"}, sparse("top-k"), step=GRADIENTS),
    )
    if settings.quick:
        return found
    return (
        *found,
        Entry("SCAFFOLD, natural", {"name": "scaffold"}, {"name": "natural"}, step=GRADIENTS),
        Entry("SCAFFOLD, rand-k 10 %", {"name": "scaffold"}, sparse("rand-k"), step=GRADIENTS),
    )


def sampled() -> tuple[Entry, ...]:
    """Half of the clients a round."""
    half: Any = {"participation": 0.5}
    updates = {"step": UPDATES, "work": "steps", "most_rounds": STALLED, **half}
    return (
        Entry("FedAvg, half", {"name": "fedavg"}, **updates),
        Entry("DIANA of updates, natural, half", {"name": "diana"}, {"name": "natural"}, **updates),
        Entry("EF21 of updates, top-k 10 %, half", {"name": "ef21"}, sparse("top-k"), **updates),
        Entry("SCAFFOLD, half", {"name": "scaffold"}, step=GRADIENTS, **half),
        Entry("SCAFFOLD, top-k 10 %, half", {"name": "scaffold"}, sparse("top-k"), step=GRADIENTS, **half),
    )


def figures(settings: Settings) -> Sequence[Figure]:
    """For each number of local steps, and with half of the clients."""
    found = [
        Figure(f"{steps}-steps", f"Ridge, {steps} local steps a round", f"{steps} steps", family(settings))
        for steps in counts(settings)
    ]
    if settings.quick:
        return found
    return [*found, Figure("sampled", "Ridge, 5 local steps, half of the clients a round", "5 steps", sampled())]


EXPERIMENT = Experiment("local-training", (__doc__ or "").splitlines()[0], cases, figures)
