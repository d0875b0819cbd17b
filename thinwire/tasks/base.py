"""The contract of a task: a model, data, a loss, an evaluation. All that a user writes to train their own."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Examples(ABC):
    """A finite set of examples that can be drawn by index."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def batch(self, indices: Tensor, device: torch.device) -> Any:
        """The examples at ``indices`` (int64), stacked, on the device; whatever ``Task.loss`` takes."""


class Task(ABC):
    """What is trained. A frozen dataclass whose fields are its options (``task.KEY`` in the configuration).

    Clients and server build the same task; a client uses only its own partition, the server only the test examples.
    A user's own task is named by its import path, ``package.module:Class``.
    """

    name: ClassVar[str]

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model. Its initial weights count on the server only; clients receive theirs."""

    def ascends(self, parameter: str) -> bool:
        """Whether the parameter of that name is to raise the loss: the adversary's, in ``min_x max_y loss(x, y)``.

        Its gradient reaches methods with the other sign, as that part of the operator (grad_x, -grad_y). A task that
        has such parameters wants a method for saddle points: masha1, masha2, extragradient.
        """
        return False

    @abstractmethod
    def train_examples(self, partition: int, partitions: int, seed: int) -> Examples:
        """The training examples of one client out of ``partitions``; the same for the same arguments on every host."""

    @abstractmethod
    def test_examples(self) -> Examples:
        """The held-out examples on which the server evaluates."""

    def client_test_examples(self, partition: int, partitions: int, seed: int) -> Examples | None:
        """A client's own held-out examples, for evaluation on the clients; None where it has none."""
        return None

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss over a batch, a scalar to differentiate."""

    @abstractmethod
    def evaluate(self, model: nn.Module, examples: Examples, device: torch.device) -> dict[str, float]:
        """Metrics over examples: at least ``loss``; ``accuracy`` in [0, 1] where it makes sense."""
