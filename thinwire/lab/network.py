"""A torch task in the pure loop: what it learns is measured on its test examples after every round."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from client.local import LocalOptions
from client.oracles import TorchModel, TorchOracle
from strategies.base import Oracle
from strategies.theory import Constants
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.tasks import Examples, Task, initial_model, trainable_layout


@dataclass(frozen=True)
class NetworkProblem:
    """A task's model, its initial weights and its clients' shares by the seed; the error is 1 - test accuracy."""

    task: Task
    clients: int
    local: LocalOptions
    seed: int = 0
    dtype: torch.dtype = torch.float32
    trainable: tuple[str, ...] = ()  # name patterns; empty: all parameters

    @cached_property
    def layout(self) -> Layout:
        """Of the trained parameters."""
        return trainable_layout(initial_model(self.task, self.seed), self.trainable)

    @cached_property
    def x0(self) -> Tensor:
        """The initial weights."""
        return self.layout.flatten(dict(initial_model(self.task, self.seed).named_parameters()), self.dtype)

    @cached_property
    def oracles(self) -> Sequence[Oracle]:
        """One for each client, over one model."""
        return tuple(TorchOracle(self._model, share) for share in self._shares)

    @property
    def weights(self) -> tuple[float, ...]:
        """p_i, by the clients' numbers of examples."""
        counts = [len(share) for share in self._shares]
        return tuple(count / sum(counts) for count in counts)

    @property
    def constants(self) -> Constants:
        """Nobody knows them. Raises ConfigError."""
        raise ConfigError("the constants of a network are not known: give a fixed step")

    def error(self, x: Tensor) -> float:
        """The share of the test examples that the model gets wrong; all of them for weights that are not finite."""
        if not bool(torch.isfinite(x).all()):
            return 1.0
        return 1.0 - self.task.evaluate(self._model.at(x), self._test, torch.device("cpu"))["accuracy"]

    @cached_property
    def _shares(self) -> Sequence[Examples]:
        return [self.task.train_examples(index, self.clients, self.seed) for index in range(self.clients)]

    @cached_property
    def _model(self) -> TorchModel:
        module = initial_model(self.task, self.seed)
        return TorchModel(self.task, module, self.layout, self.dtype, "cpu", self.local)

    @cached_property
    def _test(self) -> Examples:
        return self.task.test_examples()
