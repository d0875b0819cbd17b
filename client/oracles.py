"""The oracle of a torch task: gradients and local training on one client's examples, the model warm between rounds."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from client.example_gradients import example_gradients
from client.flat import FlatModel, TorchModel
from client.local import LocalOptions
from client.stepper import Stepper
from strategies.base import Local
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.random import Key, choose, permutation
from thinwire.tasks.base import Examples, Task
from thinwire.tasks.examples import to_dtype
from thinwire.tasks.registry import initial_model

__all__ = ["LocalOptions", "TorchModel", "TorchOracle"]

FULL_BATCH = 1024  # examples per pass of ``full``; part of the bits of its answer
WHOLE = Key(0, "full")  # ``full`` is a function of x alone


@dataclass
class _Tally:
    """What the last call did; the loss stays on the device until it is asked for."""

    loss: Tensor
    examples: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)


@dataclass
class _Following:
    """A window of units to go through, and who looks at their gradients."""

    unit: str
    batches: list[Tensor]  # of indices
    observe: Callable[[Tensor], None]
    observed: bool = False


class TorchOracle:
    """``strategies.base.Oracle`` over a model and one client's examples.

    The same key, point, buffers, threads and device give the same bits. Computes in training mode; torch's global
    generators are left as they were. Floating-point inputs are cast to the run's dtype. Raises ConfigError without
    examples.
    """

    def __init__(self, model: TorchModel, examples: Examples) -> None:
        if not len(examples):
            raise ConfigError("this client has no examples")
        self.model = model
        self.examples = examples
        self._tally = _Tally(torch.zeros(()))
        self._following: _Following | None = None
        self._grouped: Tensor | None = None

    @staticmethod
    def of(
        task: Task,
        examples: Examples,
        layout: Layout,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        options: LocalOptions | None = None,
    ) -> "TorchOracle":
        """An oracle with a model of its own, whose frozen parameters are those of seed 0."""
        return TorchOracle(TorchModel(task, initial_model(task), layout, dtype, device, options), examples)

    # -- the oracle ----------------------------------------------------------------------------------------------

    def full(self, x: Tensor) -> Tensor:
        """The mean gradient over all examples, dropout off; a new flat tensor. Draws nothing at random."""
        with self._work(x, WHOLE, dropout=False) as flat:
            for indices in torch.split(torch.arange(len(self.examples), device=self.model.device), FULL_BATCH):
                self._add_gradient(indices, len(indices) / len(self.examples))
            return flat.gradient.clone()

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The mean gradient over the ``batch`` distinct examples that the key draws; a new flat tensor."""
        total, following = len(self.examples), self._following
        with self._work(x, key.at("dropout")) as flat:
            if following is not None:  # a method may ask for two points on one minibatch: the units are the same
                self._add_observed(following.batches[0], following, seen=following.observed)
                following.observed = True
            else:
                self._add_gradient(torch.from_numpy(choose(key.at("batch"), total, self._batch)))
            return flat.gradient.clone()

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None, memory: Any = None) -> Local:
        """Local training from x; ``update`` is x minus where it ends, a new flat tensor.

        Batches follow a keyed order of all examples, a new order for each pass, or the window of ``following``. The
        optimiser starts anew, or from ``memory`` with ``local.keep``.
        """
        options, following = self.model.options, self._following
        steps = options.steps_of(len(self.examples))
        batches = islice(self._batches(key), steps) if following is None else following.batches
        with self._work(x, key.at("dropout")) as flat:
            step = Stepper(options, flat, memory)
            for indices in batches:
                flat.gradient.zero_()
                if following is None:
                    self._add_gradient(indices)
                else:
                    self._add_observed(indices, following)
                if correction is not None:
                    flat.gradient.add_(correction)
                step()
            return Local(x.to(flat.vector) - flat.vector, steps, options.rate, step.memory)

    # -- in a given order ----------------------------------------------------------------------------------------

    def units(self, unit: str) -> int:
        """How many microbatches (unit "batch") or examples there are."""
        total = len(self.examples)
        return total if unit == "example" else -(-total // self.model.options.batch)

    def window(self, unit: str, work: str) -> int:
        """How many units ``local`` (work "steps") or ``sample`` (work "minibatch") goes through."""
        steps = self.model.options.steps_of(len(self.examples)) if work == "steps" else 1
        return steps if unit == "batch" else steps * self._batch

    @contextmanager
    def following(self, unit: str, window: Sequence[int], observe: Callable[[Tensor], None]) -> Iterator[None]:
        """Within it, ``local`` and ``sample`` go through the units of ``window``; ``observe`` sees their gradients.

        A microbatch always holds the same examples: those of one keyed permutation, cut into batches.
        """
        if unit == "example":
            batches = list(torch.split(torch.tensor(window, dtype=torch.int64), self._batch))
        else:
            groups = self._groups()
            batches = [groups[index] for index in window]
        self._following = _Following(unit, batches, observe)
        try:
            yield
        finally:
            self._following = None

    def _groups(self) -> tuple[Tensor, ...]:
        """The examples of each microbatch."""
        if self._grouped is None:
            self._grouped = torch.from_numpy(permutation(Key(0, "microbatches"), len(self.examples)))
        return torch.split(self._grouped, self.model.options.batch)

    def _add_observed(self, indices: Tensor, following: _Following, seen: bool = False) -> None:
        """The gradient of some examples, and what there is to see of it: itself, or one per example."""
        if following.unit == "batch" or seen:
            self._add_gradient(indices)
            if not seen:
                following.observe(self.model.flat.gradient)
            return
        model = self.model
        batch = to_dtype(self.examples.batch(indices.to(model.device), model.device), model.dtype)
        for gradients, losses in example_gradients(model.task, model.flat, batch, len(indices)):
            following.observe(gradients)
            model.flat.gradient.add_(gradients.sum(0) / len(indices))
            self._tally.loss += losses.sum()
        self._tally.examples += len(indices)

    @property
    def _batch(self) -> int:
        return min(self.model.options.batch, len(self.examples))

    def evaluate(self, x: Tensor, buffers: Tensor | None, examples: Examples) -> dict[str, float]:
        """The task's metrics of the model at x (and with these buffers) on other examples."""
        return self.model.task.evaluate(self.model.at(x, buffers), examples, self.model.device)

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last call: mean ``train_loss`` over the ``examples`` it went through, and ``seconds``."""
        tally = self._tally
        mean = tally.loss.item() / max(tally.examples, 1)
        return {"train_loss": mean, "examples": float(tally.examples), "seconds": tally.seconds}

    @property
    def buffers(self) -> Tensor:
        """The model's floating-point buffers, flat, a copy; empty when there are none. Integer buffers stay local."""
        return self.model.flat.buffers

    @buffers.setter
    def buffers(self, value: Tensor) -> None:
        self.model.flat.buffers = value

    # -- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _work(self, x: Tensor, key: Key, dropout: bool = True) -> Iterator[FlatModel]:
        """The model in training mode, and a new tally."""
        self._tally = _Tally(torch.zeros((), dtype=self.model.dtype, device=self.model.device))
        with self.model.training(x, key, dropout) as flat:
            yield flat
        self._tally.seconds = time.perf_counter() - self._tally.started

    def _add_gradient(self, indices: Tensor, weight: float = 1.0) -> None:
        model = self.model
        batch = to_dtype(self.examples.batch(indices.to(model.device), model.device), model.dtype)
        loss = model.task.loss(model.flat.module, batch)
        model.flat.backward(loss if weight == 1.0 else loss * weight)
        self._tally.loss += loss.detach() * len(indices)
        self._tally.examples += len(indices)

    def _batches(self, key: Key) -> Iterator[Tensor]:
        """Batches of indices without end: one keyed order after the other; the last batch of each may be smaller."""
        for number in count():
            order = torch.from_numpy(permutation(key.at(f"pass {number}"), len(self.examples)))
            order = order.to(self.model.device)
            batch = self.model.options.batch
            yield from (order[start : start + batch] for start in range(0, len(self.examples), batch))
