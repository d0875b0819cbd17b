"""Error feedback: biased compressors converge with it, diverge or stall without it, and take the fewest bytes.

Beznosikov, Horvath, Richtarik, Safaryan, "On biased compression for distributed learning", JMLR 2023, example 1;
Richtarik, Sokolov, Fatkhullin, "EF21", NeurIPS 2021; Fatkhullin et al., "EF21 with bells & whistles", 2021.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.problems import FiniteSum, logistic_regression, ridge, top1_example
from thinwire.lab.binary_rows import binary_rows
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Fixed, Settings, Theory, Tuned
from thinwire.lab.libsvm import load_two_classes
from thinwire.lab.precision import Single
from thinwire.lab.shifted import paper_eta

STALLED = 500  # rounds that show a floor
ROUGH = 0.1  # weight of the regulariser that is not convex


def rough(settings: Settings, seed: int) -> FiniteSum:
    """Logistic regression with a regulariser that is not convex, on the file that was given or on drawn rows."""
    drawn = (600, 60) if settings.quick else (10_000, 300)
    rows = binary_rows(seed, *drawn) if settings.data is None else load_two_classes(settings.data)
    return logistic_regression(*rows, clients=4 if settings.quick else 20, rough=ROUGH)


def cases(settings: Settings) -> Mapping[str, Case]:
    """Three functions on which Top-1 alone diverges; the ridge; and a problem that is not convex."""
    small = settings.quick
    return {
        "three clients": Case(lambda seed: top1_example(), 1e-9, 250 if small else 1500),
        "ridge": Case(
            lambda seed: Single(ridge(seed, 5, 60, 40, 4.0) if small else ridge(seed)),
            1e-5 if small else 1e-10,
            150 if small else 1000,
        ),
        "theory": Case(lambda seed: Single(ridge(seed)), 1e-10, 4000),
        "rough": Case(
            lambda seed: Single(rough(settings, seed)),
            1e-5 if small else 1e-6,
            300 if small else 4000,
            "squared norm of the gradient",
        ),
    }


def top_k(fraction: float) -> Mapping[str, Any]:
    """Top-k over the whole vector, float32 values."""
    return {"name": "top-k", "fraction": fraction, "values": "fp32", "scope": "global"}


TOP, RAND = top_k(0.1), {**top_k(0.1), "name": "rand-k"}
GD = Entry("GD", {"name": "fedavg"}, step=Tuned())
NAIVE = Entry("no feedback, top-k", {"name": "fedavg"}, TOP, step=Tuned(), refused=True, most_rounds=STALLED)


def tuned(label: str, method: Mapping[str, Any] | str, uplink: Mapping[str, Any] = TOP, **options: Any) -> Entry:
    """A method at its best step."""
    return Entry(label, {"name": method} if isinstance(method, str) else method, uplink, step=Tuned(), **options)


def family(settings: Settings) -> tuple[Entry, ...]:
    """Error feedback with Top-k at 10 %, one way."""
    found = (GD, NAIVE, tuned("EF14, top-k", "ef14", most_rounds=STALLED), tuned("EF21, top-k", "ef21"))
    if settings.quick:
        return found
    return (
        *found,
        tuned("EF21, top-k bf16", "ef21", {**TOP, "values": "bf16"}),
        tuned("EF21, top-k natural", "ef21", {**TOP, "values": "natural"}),
        tuned("EF21+, top-k", "ef21-plus"),
        tuned("EF21-SGDM, top-k", "ef21-sgdm"),
        tuned("EControl, top-k", "econtrol"),
        tuned("EF21, half the clients", "ef21", participation=0.5),
    )


def both_ways() -> tuple[Entry, ...]:
    """With a compressed downlink too."""
    return (
        GD,
        tuned("EF21-BC, top-k both ways", "ef21-bc", downlink=TOP),
        tuned("DoubleSqueeze, top-k both ways", "double-squeeze", downlink=TOP, most_rounds=STALLED),
        tuned("EF21 + EF21-P, top-k both ways", "ef21", downlink=TOP),
        tuned("DIANA + EF21-P, rand-k, top-k", "diana", RAND, downlink=TOP),
    )


def everyone() -> tuple[Entry, ...]:
    """Every method, one way, compressors of 10 %."""
    return (
        GD,
        tuned("EF21, top-k", "ef21"),
        tuned("EF21, half the clients", "ef21", participation=0.5),
        tuned("EControl, top-k", "econtrol"),
        tuned("VR-GDCI, rand-k", "vr-gdci", RAND, adapt=paper_eta),
        tuned("DIANA, rand-k", "diana", RAND),
        tuned("EF21, scaled rand-k", "ef21", RAND),
        tuned("Rand-DIANA, rand-k", "rand-diana", RAND),
        tuned("MARINA, rand-k", "marina", RAND),
        tuned("DASHA, rand-k", "dasha", RAND),
    )


def figures(settings: Settings) -> Sequence[Figure]:
    """The example; the ridge with every step tuned, one way and both ways; theory's steps; Top-1 without convexity."""
    one, step = top_k(1 / 3), Fixed(0.6, in_1_over_L=True)
    three = (
        Entry("GD", {"name": "fedavg"}, step=step),
        Entry("no feedback, top-1", {"name": "fedavg"}, one, step=step, refused=True),
        Entry("EF14, top-1", {"name": "ef14"}, one, step=step),
        Entry("EF21, top-1", {"name": "ef21"}, one, step=step),
    )
    found = [
        Figure("three-clients", "Top-1 on three clients, f_i = <a_i, x>^2 + |x|^2/4", "three clients", three),
        Figure("feedback", "Ridge, top-k 10 %, every step tuned", "ridge", family(settings)),
    ]
    if settings.quick:
        return found
    theory = (
        Entry("GD, theory", {"name": "fedavg"}),
        Entry("EF14, theory", {"name": "ef14"}, TOP, step=Theory()),
        Entry("EF21, theory", {"name": "ef21"}, TOP, step=Theory()),
        Entry("EF21, theory x 10", {"name": "ef21"}, TOP, step=Theory(10)),
        Entry("EF14, theory x 10", {"name": "ef14"}, TOP, step=Theory(10)),
    )
    single = top_k(1 / 300)
    return [
        *found,
        Figure("everyone", "Ridge, compressors of 10 %, every step tuned", "ridge", everyone()),
        Figure("both-ways", "Ridge, both ways 10 %, every step tuned", "ridge", both_ways()),
        Figure("theory", "Ridge, top-k 10 %, steps of theory and larger ones", "theory", theory),
        Figure(
            "top-1",
            "Logistic regression, not convex: one entry of 300, every step tuned",
            "rough",
            (GD, tuned("EF21, top-1", "ef21", single), tuned("EF14, top-1", "ef14", single)),
        ),
    ]


EXPERIMENT = Experiment("error-feedback", (__doc__ or "").splitlines()[0], cases, figures, takes_data=True)
