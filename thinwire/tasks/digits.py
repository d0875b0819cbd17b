"""The digits that come with scikit-learn: a first run that downloads nothing."""

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import nn

from thinwire.random import Key
from thinwire.tasks.classification import check_fractions, hold_out
from thinwire.tasks.examples import TensorExamples
from thinwire.tasks.labelled import LabelledTask

PIXELS, CLASSES, LEVELS = 64, 10, 16


@dataclass(frozen=True)
class Digits(LabelledTask):
    """1,797 handwritten digits of 8x8 pixels and a multilayer perceptron."""

    name: ClassVar[str] = "digits"
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    dropout: float = 0.0  # share of hidden units dropped, in [0, 1)
    partition: Literal["dirichlet", "iid", "shards", "all", "drawn"] = "dirichlet"
    alpha: float = 0.3  # of dirichlet and drawn: concentration, small is uneven
    shards: int = 2  # of shards: pieces per client
    minimum: int = 1  # examples that every client has at least
    drawn: int = 20  # of drawn: examples of each client, from a pool that all share
    test_fraction: float = 0.2  # held out for the server
    client_test_fraction: float = 0.0  # held out of each client's own share, for evaluation on the clients

    def __post_init__(self) -> None:
        check_fractions(dropout=self.dropout, client_test_fraction=self.client_test_fraction)
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction = {self.test_fraction} is not in (0, 1)")
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden = {self.hidden} has a width below 1")
        self._scheme  # noqa: B018  checks alpha, shards, minimum and drawn

    def model(self) -> nn.Module:
        """Linear layers with ReLU between them."""
        widths = (PIXELS, *self.hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
        return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))

    def _sets(self) -> tuple[TensorExamples, TensorExamples]:
        """Images float32 in [0, 1] of shape (n, 64), labels int64; a share is held out for the server."""
        return _split_digits(self.test_fraction)


@lru_cache(maxsize=4)
def _split_digits(test_fraction: float) -> tuple[TensorExamples, TensorExamples]:
    """(train, test), read only: a simulation asks for them once for every client."""
    return hold_out(_all_digits(), test_fraction, Key(0, "digits/test"))


@cache
def _all_digits() -> TensorExamples:
    from sklearn.datasets import load_digits  # a second of import that other tasks should not pay

    images, labels = load_digits(return_X_y=True)
    return TensorExamples(torch.tensor(images, dtype=torch.float32) / LEVELS, torch.tensor(labels, dtype=torch.int64))
