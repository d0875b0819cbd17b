"""Logistic regression on LIBSVM data: shifted compression against gradient descent, both tuned."""

from collections.abc import Mapping, Sequence

from strategies.problems import FiniteSum, logistic_regression
from thinwire.lab.binary_rows import binary_rows
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Settings, Tuned
from thinwire.lab.libsvm import load_two_classes
from thinwire.lab.precision import Single
from thinwire.lab.shifted import paper_eta

STALLED = 1000  # rounds that show a floor


def problem(settings: Settings, seed: int) -> FiniteSum:
    """The file that was given, or drawn rows, over 20 clients; condition 100."""
    if settings.quick:
        rows = binary_rows(seed, 600, 60) if settings.data is None else load_two_classes(settings.data)
        return logistic_regression(*rows, clients=4, kappa=20.0)
    rows = binary_rows(seed, 10_000, 300) if settings.data is None else load_two_classes(settings.data)
    return logistic_regression(*rows, clients=20, kappa=100.0)


def cases(settings: Settings) -> Mapping[str, Case]:
    """One problem."""
    target, rounds = (1e-4, 200) if settings.quick else (1e-10, 3000)
    return {"logistic": Case(lambda seed: Single(problem(settings, seed)), target, rounds)}


def figures(settings: Settings) -> Sequence[Figure]:
    """All tuned; and what theory's steps bring."""
    tenth = {"name": "rand-k", "fraction": 0.1, "values": "fp32", "scope": "global"}
    rounded = {**tenth, "values": "natural"}
    tuned = [
        Entry("GD", {"name": "fedavg"}, step=Tuned()),
        Entry("DCGD, rand-k 10 %", {"name": "dcgd"}, tenth, step=Tuned(), most_rounds=STALLED),
        Entry("DIANA, rand-k 10 %", {"name": "diana"}, tenth, step=Tuned()),
        Entry("DIANA, rand-k 10 % natural", {"name": "diana"}, rounded, step=Tuned()),
    ]
    theory = [
        Entry("GD, theory", {"name": "fedavg"}),
        Entry("DCGD, theory, natural", {"name": "dcgd"}, {"name": "natural"}, most_rounds=2 * STALLED),
        Entry("DIANA, theory, natural", {"name": "diana"}, {"name": "natural"}),
        Entry("VR-GDCI, theory, natural", {"name": "vr-gdci"}, {"name": "natural"}, adapt=paper_eta),
    ]
    if not settings.quick:
        tuned += [
            Entry("DIANA, natural", {"name": "diana"}, {"name": "natural"}, step=Tuned()),
            Entry("Rand-DIANA, rand-k 10 %", {"name": "rand-diana"}, tenth, step=Tuned()),
            Entry("VR-GDCI, rand-k 10 %", {"name": "vr-gdci"}, tenth, step=Tuned(), adapt=paper_eta),
            Entry("EF21, top-k 10 %", {"name": "ef21"}, {**tenth, "name": "top-k"}, step=Tuned()),
        ]
        theory += [
            Entry(
                "GDCI, theory, natural", {"name": "gdci"}, {"name": "natural"}, most_rounds=2 * STALLED, adapt=paper_eta
            ),
            Entry("Rand-DIANA, theory, natural", {"name": "rand-diana"}, {"name": "natural"}),
        ]
    return (
        Figure("tuned", "Logistic regression, every step tuned", "logistic", tuned),
        Figure("theory", "Logistic regression, natural rounding, steps of theory", "logistic", theory),
    )


EXPERIMENT = Experiment("logistic", (__doc__ or "").splitlines()[0], cases, figures, takes_data=True)
