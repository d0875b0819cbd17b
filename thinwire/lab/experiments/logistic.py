"""Logistic regression on LIBSVM data: shifted compression against gradient descent, both tuned."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from strategies.problems import FiniteSum, gaussian, logistic_regression
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Settings, Tuned
from thinwire.lab.libsvm import load_two_classes
from thinwire.lab.precision import Single
from thinwire.random import Key, uniforms

POSITIVE = 0.03  # share of the positive class in w8a
FREQUENT, RARE = 0.35, 2e-4  # shares of the rows in which its most and least frequent features are 1


def binary_rows(seed: int, rows: int, numel: int) -> tuple[Tensor, Tensor]:
    """Data of w8a's kind: sparse binary features of very different frequency, and few positive labels."""
    key = Key(seed, "binary rows")
    shares = torch.from_numpy(np.geomspace(FREQUENT, RARE, numel))
    drawn = torch.from_numpy(uniforms(key.at("features"), rows * numel)).view(rows, numel)
    features = (drawn < shares).double()
    margins = features @ gaussian(key.at("truth"), numel) + gaussian(key.at("noise"), rows) / 2
    return features, torch.where(margins > torch.quantile(margins, 1 - POSITIVE), 1.0, -1.0).double()


def problem(settings: Settings, seed: int) -> FiniteSum:
    """The file that was given, or drawn rows, over 20 clients; condition 100."""
    if settings.quick:
        rows = binary_rows(seed, 600, 60) if settings.data is None else load_two_classes(settings.data)
        return logistic_regression(*rows, clients=5, kappa=20.0)
    rows = binary_rows(seed, 10_000, 300) if settings.data is None else load_two_classes(settings.data)
    return logistic_regression(*rows, clients=20, kappa=100.0)


def cases(settings: Settings) -> Mapping[str, Case]:
    """One problem."""
    target, rounds = (1e-5, 300) if settings.quick else (1e-10, 4000)
    return {"logistic": Case(lambda seed: Single(problem(settings, seed)), target, rounds)}


def figures(settings: Settings) -> Sequence[Figure]:
    """All tuned."""
    entries = (
        Entry("GD", {"name": "fedavg"}, step=Tuned()),
        Entry("EF21, top-k 10 %", {"name": "ef21"}, {"name": "top-k", "fraction": 0.1}, step=Tuned()),
    )
    return (Figure("tuned", "Logistic regression, every step tuned", "logistic", entries),)


EXPERIMENT = Experiment("logistic", (__doc__ or "").splitlines()[0], cases, figures, takes_data=True)
