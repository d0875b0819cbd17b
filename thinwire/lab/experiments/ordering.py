"""Coordinated order of examples: random reshuffling, each client on its own, and CD-GraB from gradients or sketches.

Lu, Guo, De Sa, "GraB", NeurIPS 2022, https://arxiv.org/abs/2205.10733; Cooper et al., "Coordinating distributed example
orders for provably accelerated training", NeurIPS 2023, https://arxiv.org/abs/2302.00845.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from client.local import LocalOptions
from strategies.base import Method
from strategies.ordered import Ordered, OrderOptions, in_order
from strategies.ordering_problems import OrderedLogistic
from strategies.problems import LinearModel, logistic_loss
from strategies.row_units import RowUnits
from strategies.theory import Constants
from thinwire.errors import ConfigError
from thinwire.lab import herding
from thinwire.lab.experiment import Adapt, Case, Entry, Experiment, Figure, Fixed, Measured, Settings
from thinwire.lab.network import NetworkProblem
from thinwire.layout import Layout
from thinwire.tasks.text import Text

EPOCHS = 10
CLIENTS = 8
TEXT_EPOCHS = 10
UNIT_STEP = Fixed(1.0)


@dataclass(frozen=True)
class LogisticRows:
    """Logistic regression whose round is one example of every client; the error is f - f*."""

    problem: OrderedLogistic

    @property
    def layout(self) -> Layout:
        """One flat vector."""
        return Layout.flat(self.problem.numel)

    @property
    def x0(self) -> Tensor:
        """Zero."""
        return torch.zeros(self.problem.numel, dtype=torch.float64)

    @cached_property
    def oracles(self) -> Sequence[RowUnits]:
        """A row is a unit."""
        features, labels = (torch.from_numpy(array) for array in self.problem.data)
        options: dict[str, Any] = {"scale": 1 / self.problem.rows, "lam": self.problem.lam}
        pairs = zip(features, labels, strict=True)
        return tuple(RowUnits(LinearModel(a, y, logistic_loss, **options)) for a, y in pairs)

    @property
    def constants(self) -> Constants:
        """Not asked for. Raises ConfigError."""
        raise ConfigError("this experiment takes fixed steps")

    def error(self, x: Tensor) -> float:
        """f(x) - f*."""
        return max(0.0, self.problem.value(x.numpy()) - self.problem.least)


@dataclass(frozen=True)
class TextProblem(NetworkProblem):
    """A language model; the error is the test loss, nats per token."""

    def error(self, x: Tensor) -> float:
        """Infinite for weights that are not finite."""
        if not bool(torch.isfinite(x).all()):
            return float("inf")
        return float(self.task.evaluate(self._model.at(x), self._test, torch.device("cpu"))["loss"])


def logistic(settings: Settings, seed: int) -> LogisticRows:
    """d = 200, eight clients of 256 rows."""
    return LogisticRows(
        OrderedLogistic(4, 32, 40, seed=seed) if settings.quick else OrderedLogistic(CLIENTS, seed=seed)
    )


def text(settings: Settings, seed: int) -> TextProblem:
    """An LSTM on words of the file that was given, or on the characters of the text that is always there."""
    if settings.quick:
        task = Text(hidden=16, embedding=8, length=20)
    elif settings.data is None:
        task = Text()
    else:
        task = Text(path=str(settings.data), level="word", vocabulary=1000)
    return TextProblem(task, 4, LocalOptions(epochs=1, batch=16, rate=2.0), seed)


def ordered(name: str, work: str, sketch: int = 256, source: str = "auto") -> Adapt:
    """The method with its clients' units in that order; random ones go the same way, and get no sign."""

    def adapt(method: Method, problem: Measured, rate: float | None) -> Method:
        if name == "random":
            return Ordered(method, OrderOptions("random"), "minibatch" if work == "minibatch" else "steps")
        return in_order(method, {"name": name, "sketch": sketch, "source": source}, work)

    return adapt


def cases(settings: Settings) -> Mapping[str, Case]:
    """The two problems."""
    rows = 32 if settings.quick else 256
    epochs = (3, 2) if settings.quick else (EPOCHS, TEXT_EPOCHS)
    return {
        "logistic": Case(lambda seed: logistic(settings, seed), 0.0, epochs[0] * rows, "f - f*"),
        "text": Case(lambda seed: text(settings, seed), 0.0, epochs[1], "test loss, nats per token"),
    }


def orders(work: str, step: Fixed) -> tuple[Entry, ...]:
    """The same method in every order."""
    fedavg: Any = {"name": "fedavg"}
    common: Any = {"step": step, "work": work}
    found = [
        Entry("random reshuffling", fedavg, adapt=ordered("random", work), **common),
        Entry("GraB, each on its own", fedavg, adapt=ordered("grab", work), **common),
        Entry("ID-GraB", fedavg, adapt=ordered("id-grab", work), **common),
    ]
    if work == "minibatch":
        found.append(Entry("CD-GraB, gradients received", fedavg, adapt=ordered("cd-grab", work), **common))
    sketches = (64, 128, 256) if work == "minibatch" else (256, 1024)
    return (
        *found,
        *(
            Entry(f"CD-GraB, sketches of {k}", fedavg, adapt=ordered("cd-grab", work, k, "sketches"), **common)
            for k in sketches
        ),
    )


def figures(settings: Settings) -> Sequence[Figure]:
    """One for each problem."""
    return (
        Figure(
            "logistic",
            "Logistic regression, one example of every client a round",
            "logistic",
            orders("minibatch", UNIT_STEP),
        ),
        Figure("text", "An LSTM, one local epoch a round", "text", orders("steps", UNIT_STEP)),
    )


def also(settings: Settings, seeds: int, folder: Path) -> Sequence[Path]:
    """The herding bound."""
    sizes = herding.Sizes((16, 64), (4, 8), 64, 4) if settings.quick else herding.Sizes()
    return herding.write(folder, list(herding.measure(sizes, seeds)))


EXPERIMENT = Experiment("ordering", (__doc__ or "").splitlines()[0], cases, figures, takes_data=True, also=also)
