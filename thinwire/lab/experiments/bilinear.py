"""Bilinear saddle points: MASHA converges linearly where compressed extragradient without an anchor stalls.

Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication for solving
variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313, section 5:
ten devices, one way and both ways, against compressed descent-ascent (CGDA), compressed extragradient (CEG) and
extragradient with classical error feedback (EF-EG); with constraints, sampled devices, and minibatches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.prox import L1, Box
from strategies.saddle_problems import SaddleProblem, bilinear
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Settings, Tuned
from thinwire.lab.precision import Single

COMPONENTS = 20
BOX, LASSO = Box(-1.5, 1.5), L1(0.3)
PROXES: Mapping[str, Any] = {
    "box": {"name": "box", "low": BOX.low, "high": BOX.high},
    "l1": {"name": "l1", "weight": LASSO.weight},
}
STEP = Tuned(0.5)
STALLED = 1200  # rounds that show a floor


def problem(settings: Settings, seed: int, **options: Any) -> SaddleProblem:
    """Ten devices, x and y of 50 entries, condition 100; a small one when quick."""
    if settings.quick:
        return bilinear(seed, devices=4, half=15, lam=0.1, **options)
    return bilinear(seed, **options)


def cases(settings: Settings) -> Mapping[str, Case]:
    """Without and with constraints, and with components for minibatches."""
    target, rounds = (1e-3, 150) if settings.quick else (1e-8, 3000)
    found = {
        "bilinear": Case(lambda seed: Single(problem(settings, seed)), target, rounds),
        "box": Case(lambda seed: Single(problem(settings, seed, prox=BOX)), target, rounds),
        "l1": Case(lambda seed: Single(problem(settings, seed, prox=LASSO)), target, rounds),
    }
    for batch in (1, 4):
        found[f"batch {batch}"] = Case(
            lambda seed, batch=batch: Single(problem(settings, seed, components=COMPONENTS).in_batches(batch)),  # type: ignore[misc]
            target,
            rounds,
        )
    return found


def sparse(name: str, fraction: float, **options: Any) -> Mapping[str, Any]:
    """Rand-k or Top-k over the whole vector."""
    return {"name": name, "fraction": fraction, "values": "fp32", "scope": "global", **options}


RAND_25, RAND_10, TOP_25 = sparse("rand-k", 0.25), sparse("rand-k", 0.1), sparse("top-k", 0.25)
EXTRAGRADIENT = Entry("extragradient", {"name": "extragradient"}, step=STEP)
MASHA1 = Entry("MASHA1, rand-k 25 %", {"name": "masha1"}, RAND_25, step=STEP)
MASHA2 = Entry("MASHA2, top-k 25 %", {"name": "masha2"}, TOP_25, step=STEP)


def one_way(settings: Settings) -> Figure:
    """The uplink is compressed."""
    stall = (
        Entry("CGDA, rand-k 25 %", {"name": "cgda"}, RAND_25, step=STEP, most_rounds=STALLED),
        Entry("CEG, rand-k 25 %", {"name": "ceg"}, RAND_25, step=STEP, most_rounds=STALLED),
        Entry("EF-EG, top-k 25 %", {"name": "ef-eg"}, TOP_25, step=STEP, most_rounds=STALLED),
    )
    rounded = sparse("rand-k", 0.1, values="natural")
    more = (
        Entry("MASHA1, rand-k 10 %", {"name": "masha1"}, RAND_10, step=STEP),
        Entry("MASHA1, rand-k 10 % natural", {"name": "masha1"}, rounded, step=STEP),
        Entry("MASHA1, natural", {"name": "masha1"}, {"name": "natural"}, step=STEP),
    )
    entries = (
        (EXTRAGRADIENT, MASHA1, MASHA2, *stall[1:])
        if settings.quick
        else (EXTRAGRADIENT, MASHA1, *more, MASHA2, *stall)
    )
    return Figure("one-way", "Bilinear, uplink compressed, every step tuned", "bilinear", entries)


def both_ways() -> Figure:
    """So is the downlink."""
    shared = sparse("rand-k", 0.25, values="natural", shared=True)
    entries = (
        EXTRAGRADIENT,
        Entry("MASHA1, rand-k 25 % both ways", {"name": "masha1"}, RAND_25, RAND_25, step=STEP),
        Entry("MASHA1, one mask of 25 % for all", {"name": "masha1"}, shared, {"name": "natural"}, step=STEP),
        Entry("MASHA1, natural both ways", {"name": "masha1"}, {"name": "natural"}, {"name": "natural"}, step=STEP),
        Entry("MASHA2, top-k 25 % both ways", {"name": "masha2"}, TOP_25, TOP_25, step=STEP),
    )
    return Figure("both-ways", "Bilinear, both ways compressed, every step tuned", "bilinear", entries)


def constrained(name: str, settings: Settings) -> Figure:
    """With a prox."""
    prox = PROXES[name]
    entries = [
        Entry("extragradient", {"name": "extragradient", "prox": prox}, step=STEP),
        Entry("MASHA1, rand-k 25 %", {"name": "masha1", "prox": prox}, RAND_25, step=STEP),
    ]
    if not settings.quick:
        entries.append(
            Entry("CEG, rand-k 25 %", {"name": "ceg", "prox": prox}, RAND_25, step=STEP, most_rounds=STALLED)
        )
    return Figure(name, f"Bilinear, {name}, every step tuned", name, entries)


def figures(settings: Settings) -> Sequence[Figure]:
    """One way, both ways, with constraints, with three of ten devices, and with minibatches."""
    if settings.quick:
        return [one_way(settings), constrained("box", settings)]
    sampled = (
        MASHA1,
        Entry("MASHA1, 3 of 10 devices", {"name": "masha1"}, RAND_25, step=STEP, participation=0.3),
        Entry(
            "MASHA1, natural, 3 of 10 devices", {"name": "masha1"}, {"name": "natural"}, step=STEP, participation=0.3
        ),
    )
    return [
        one_way(settings),
        both_ways(),
        constrained("box", settings),
        constrained("l1", settings),
        Figure("sampled", "Bilinear, three of ten devices a round, every step tuned", "bilinear", sampled),
        *(
            Figure(
                f"batch-{batch}",
                f"Bilinear, {batch} of {COMPONENTS} components a round, every step tuned",
                f"batch {batch}",
                (
                    Entry("MASHA1, full", {"name": "masha1"}, RAND_25, step=STEP),
                    Entry("MASHA1, minibatches", {"name": "masha1"}, RAND_25, step=STEP, work="minibatch"),
                ),
            )
            for batch in (1, 4)
        ),
    ]


EXPERIMENT = Experiment("bilinear", (__doc__ or "").splitlines()[0], cases, figures)
