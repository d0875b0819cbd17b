"""A task of one's own, named by its import path, whose local training can be held in the middle by a file."""

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from thinwire.random import Key, uniforms
from thinwire.tasks.base import Task
from thinwire.tasks.examples import TensorExamples

DEADLINE_SECONDS = 120.0
CALLS = itertools.count(1)  # of the loss, in this process


@dataclass(frozen=True)
class Gated(Task):
    """Fit a small network to noise. With a ``folder``, the loss waits while the folder's file ``hold`` names its call.

    ``hold`` contains the number of the first call that waits; a process that waits leaves a file ``waiting-PID``.
    """

    folder: str = ""

    def model(self):
        return nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3))

    def train_examples(self, partition, partitions, seed):
        return examples(Key(seed, "train", client=partition), 40 + 8 * partition)

    def test_examples(self):
        return examples(Key(0, "test"), 64)

    def loss(self, model, batch):
        self._wait(next(CALLS))
        inputs, targets = batch
        return nn.functional.mse_loss(model(inputs), targets)

    def evaluate(self, model, examples, device):
        inputs, targets = examples.batch(torch.arange(len(examples)), device)
        return {"loss": nn.functional.mse_loss(model(inputs), targets).item()}

    def _wait(self, call):
        hold = Path(self.folder) / "hold"
        if not self.folder or call < first_held(hold):
            return
        (hold.parent / f"waiting-{os.getpid()}").touch()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while hold.exists():
            assert time.monotonic() < deadline, "nobody removed the file that holds this process"
            time.sleep(0.01)


def first_held(hold):
    try:
        return int(hold.read_text())
    except FileNotFoundError:
        return float("inf")


def examples(key, count):
    drawn = uniforms(key, count * 15).reshape(count, 15)
    return TensorExamples(torch.tensor(drawn[:, :12], dtype=torch.float32), torch.tensor(drawn[:, 12:]).float())
