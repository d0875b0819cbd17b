"""Ridge regression: shifted compression reaches the minimiser where compressed gradients alone stop short.

Shulgin, Richtarik, "Shifted compression framework: generalizations and improvements", UAI 2022,
https://arxiv.org/abs/2206.10452, section 5: gradient descent, DCGD, DCGD with the shifts of the solution (STAR), DIANA,
Rand-DIANA, GDCI and VR-GDCI, with rand-k and with random dithering to powers of two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.problems import ridge
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Settings, Theory, Tuned
from thinwire.lab.precision import Single
from thinwire.lab.shifted import paper_eta, solved

STALLED = 3000  # rounds that show a floor


def dithering(levels: int) -> Mapping[str, Any]:
    """Natural dithering, the vector's norm times a power of two for every entry."""
    return {"name": "natural-dithering", "levels": levels}


def problem(settings: Settings, seed: int) -> Single:
    """The paper's: 100 x 80 over 10 clients; a small one when quick."""
    return Single(ridge(seed, 5, 60, 40, 4.0) if settings.quick else ridge(seed))


def cases(settings: Settings) -> Mapping[str, Case]:
    """Steps of theory take many rounds, tuned ones few."""
    target, rounds = (1e-5, 400) if settings.quick else (1e-10, 8000)
    return {
        "ridge": Case(lambda seed: problem(settings, seed), target, rounds),
        "tuned": Case(lambda seed: problem(settings, seed), target, 1000),
    }


def rand_k(fraction: float) -> Mapping[str, Any]:
    """Rand-k over the whole vector, float32 values."""
    return {"name": "rand-k", "fraction": fraction, "values": "fp32", "scope": "global"}


def family(uplink: Mapping[str, Any], words: str) -> tuple[Entry, ...]:
    """Gradient descent, and every method of the paper with one compressor, at the steps of theory."""
    return (
        Entry("GD, theory", {"name": "fedavg"}),
        Entry(f"DCGD, {words}", {"name": "dcgd"}, uplink, most_rounds=STALLED),
        Entry(f"STAR, {words}", {"name": "dcgd-star"}, uplink, adapt=solved),
        Entry(f"DIANA, {words}", {"name": "diana"}, uplink),
        Entry(f"Rand-DIANA, {words}", {"name": "rand-diana"}, uplink),
        Entry(f"GDCI, {words}", {"name": "gdci"}, uplink, most_rounds=STALLED, adapt=paper_eta),
        Entry(f"VR-GDCI, {words}", {"name": "vr-gdci"}, uplink, adapt=paper_eta),
    )


def tuned(uplink: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Those that reach the minimiser, at their best steps."""
    return (
        Entry("GD", {"name": "fedavg"}, step=Tuned()),
        Entry("GD at 1/L", {"name": "fedavg"}),
        Entry("DIANA", {"name": "diana"}, uplink, step=Tuned()),
        Entry("Rand-DIANA", {"name": "rand-diana"}, uplink, step=Tuned()),
        Entry("VR-GDCI", {"name": "vr-gdci"}, uplink, step=Tuned(), adapt=paper_eta),
        Entry("DIANA, natural values", {"name": "diana"}, {**uplink, "values": "natural"}, step=Tuned()),
    )


def refreshes(uplink: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Rand-DIANA with several probabilities of a refresh."""
    return (
        Entry("DIANA", {"name": "diana"}, uplink, step=Tuned()),
        *(
            Entry(f"Rand-DIANA, p = {p:g}", {"name": "rand-diana", "probability": p}, uplink, step=Tuned())
            for p in (0.01, 0.03, 0.1, 0.3)
        ),
    )


def figures(settings: Settings) -> Sequence[Figure]:
    """The compressors at the steps of theory; all tuned; the steps of DCGD; the refreshes of Rand-DIANA."""

    def at_theory(uplink: Mapping[str, Any], words: str) -> Figure:
        name, entries = words.removesuffix(" %").replace(" ", "-"), family(uplink, words)
        return Figure(name, f"Ridge, {words}, steps of theory", "ridge", entries)

    eight = at_theory(dithering(8), "dithering 8")
    if settings.quick:
        return [at_theory(rand_k(0.25), "rand-k 25 %"), eight]
    tenth = rand_k(0.1)
    halved = tuple(
        Entry(f"DCGD, theory x {times:g}", {"name": "dcgd"}, tenth, step=Theory(times), most_rounds=STALLED)
        for times in (1, 0.5, 0.25)
    )
    return [
        at_theory(tenth, "rand-k 10 %"),
        at_theory(rand_k(0.5), "rand-k 50 %"),
        at_theory(rand_k(0.9), "rand-k 90 %"),
        eight,
        at_theory(dithering(4), "dithering 4"),
        Figure("tuned", "Ridge, rand-k 10 %, every step tuned", "tuned", tuned(tenth)),
        Figure("steps", "Ridge: the floor of DCGD falls with its step", "ridge", halved),
        Figure("refreshes", "Ridge: how often Rand-DIANA refreshes its shifts, tuned", "tuned", refreshes(tenth)),
    ]


EXPERIMENT = Experiment("ridge", (__doc__ or "").splitlines()[0], cases, figures)
