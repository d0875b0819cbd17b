"""Adversarial digits: a network against an adversary, a saddle point; MASHA follows extragradient for fewer bytes.

Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication for solving
variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313, section 5.2, on
a task that a laptop can train: no variance reduction, minibatches, and both ways compressed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from client.local import LocalOptions
from thinwire.lab.experiment import IDENTITY, Case, Entry, Experiment, Figure, Fixed, Settings, Tuned
from thinwire.lab.network import NetworkProblem
from thinwire.tasks.adversarial_digits import AdversarialDigits

START = 0.1  # a step at which every method here learns; a quick run takes no other


@dataclass(frozen=True)
class RobustProblem(NetworkProblem):
    """The same as any network; the error is that on attacked test digits."""

    def error(self, x: Tensor) -> float:
        """1 - robust accuracy; all wrong for weights that are not finite."""
        if not bool(torch.isfinite(x).all()):
            return 1.0
        return 1.0 - self.task.evaluate(self._model.at(x), self._test, torch.device("cpu"))["robust_accuracy"]


def game(settings: Settings, seed: int) -> RobustProblem:
    """Ten clients with uneven shares; three when quick."""
    attack_steps = 5 if settings.quick else 20
    task = AdversarialDigits(hidden=(32,), attack_steps=attack_steps)
    return RobustProblem(task, 3 if settings.quick else 10, LocalOptions(batch=64), seed)


def cases(settings: Settings) -> Mapping[str, Case]:
    """One game; an iteration is two rounds."""
    target, rounds = (0.0, 120) if settings.quick else (0.35, 1000)
    return {"digits": Case(lambda seed: game(settings, seed), target, rounds, "share of attacked test digits wrong")}


def step(settings: Settings) -> Fixed | Tuned:
    """The same search for all; too long for a quick run."""
    return Fixed(START) if settings.quick else Tuned(START, in_1_over_L=False)


def masha(settings: Settings, label: str, name: str, compressor: Mapping[str, Any]) -> Entry:
    """MASHA without variance reduction, the same compressor both ways."""
    method = {"name": name, "variance_reduction": False}
    return Entry(label, method, compressor, compressor, step=step(settings), work="minibatch")


def figures(settings: Settings) -> Sequence[Figure]:
    """Dense extragradient, and MASHA both ways."""
    top = {"name": "top-k", "fraction": 0.1}
    entries = [
        Entry("extragradient", {"name": "extragradient"}, IDENTITY, step=step(settings), work="minibatch"),
        masha(settings, "MASHA1, natural", "masha1", {"name": "natural"}),
        masha(settings, "MASHA2, top-k 10 %", "masha2", top),
    ]
    if not settings.quick:
        entries += [
            masha(settings, "MASHA1, qsgd", "masha1", {"name": "qsgd"}),
            masha(settings, "MASHA2, top-k 2 %", "masha2", {**top, "fraction": 0.02}),
            masha(settings, "MASHA2, RSVD rank 2", "masha2", {"name": "rsvd", "rank": 2}),
        ]
    return (Figure("adversarial-digits", "Digits against an adversary, both ways compressed", "digits", entries),)


EXPERIMENT = Experiment("adversarial-digits", (__doc__ or "").splitlines()[0], cases, figures)
