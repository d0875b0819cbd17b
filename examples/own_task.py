"""The smallest task of one's own: train it with ``--set task.name=examples.own_task:Line``."""

from dataclasses import dataclass

import torch
from torch import nn

from thinwire.tasks.base import Task
from thinwire.tasks.examples import TensorExamples


@dataclass(frozen=True)
class Line(Task):
    """Fit y = 3 x - 1; each field is an option, ``--set task.noise=0.2``."""

    noise: float = 0.1

    def model(self):
        return nn.Linear(1, 1)

    def train_examples(self, partition, partitions, seed):
        random = torch.Generator().manual_seed(1000 * seed + partition)
        x = torch.rand(64, 1, generator=random)
        return TensorExamples(x, 3 * x - 1 + self.noise * torch.randn(64, 1, generator=random))

    def test_examples(self):
        x = torch.linspace(0, 1, 50).unsqueeze(1)
        return TensorExamples(x, 3 * x - 1)

    def loss(self, model, batch):
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluate(self, model, examples, device):
        x, y = examples.batch(torch.arange(len(examples)), device)
        return {"loss": self.loss(model, (x.to(model.weight), y.to(model.weight))).item()}
