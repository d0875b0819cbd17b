"""Tasks whose examples are labelled tensors that a scheme deals out to the clients."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.partition import Scheme
from thinwire.random import Key
from thinwire.tasks.base import Examples, Task
from thinwire.tasks.classification import cross_entropy, evaluate_classifier, hold_out, share
from thinwire.tasks.examples import TensorExamples


class LabelledTask(Task):
    """Dealing out, loss and evaluation; a task says what the sets are, how they are dealt out, and what the model is.

    Its options are those of ``thinwire.partition.Scheme``, and ``client_test_fraction``.
    """

    partition: Any
    alpha: float
    shards: int
    minimum: int
    drawn: int
    client_test_fraction: float

    @abstractmethod
    def _sets(self) -> tuple[TensorExamples, TensorExamples]:
        """(train, test), the same in every run."""

    def train_examples(self, partition: int, partitions: int, seed: int) -> Examples:
        """A client's share."""
        return self._own(partition, partitions, seed)[0]

    def test_examples(self) -> Examples:
        """The server's."""
        return self._sets()[1]

    def client_test_examples(self, partition: int, partitions: int, seed: int) -> Examples | None:
        """The client's own held-out share; None when ``client_test_fraction`` is 0."""
        return self._own(partition, partitions, seed)[1]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(model, batch)

    def evaluate(self, model: nn.Module, examples: Examples, device: torch.device) -> dict[str, float]:
        """Loss and accuracy."""
        return evaluate_classifier(model, examples, device)

    @property
    def _scheme(self) -> Scheme:
        """Raises ValueError for options that it does not take."""
        return Scheme(self.partition, self.alpha, self.shards, self.minimum, self.drawn)

    def _own(self, partition: int, partitions: int, seed: int) -> tuple[TensorExamples, TensorExamples | None]:
        own = share(self._sets()[0], self._scheme, partition, partitions, seed)
        if not self.client_test_fraction:
            return own, None
        return hold_out(own, self.client_test_fraction, Key(seed, f"{self.name}/client test", client=partition))
