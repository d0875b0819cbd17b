"""The oracle of a torch task: gradients and local training on one client's examples, the model warm between rounds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice

import torch
from torch import Tensor, nn

from client.device import reproducible, seeded
from client.flat import FlatModel, frozen_digest
from client.local import LocalOptions, Stepper
from client.tasks.base import Examples, Task
from client.tasks.examples import to_dtype
from client.tasks.registry import initial_model
from strategies.base import Local
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.random import Key, choose, permutation

FULL_BATCH = 1024  # examples per pass of ``full``; part of the bits of its answer
WHOLE = Key(0, "full")  # ``full`` is a function of x alone


@dataclass
class _Tally:
    """What the last call did; the loss stays on the device until it is asked for."""

    loss: Tensor
    examples: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class TorchOracle:
    """``strategies.base.Oracle`` over a task's model and one client's examples.

    The same key, point, buffers, threads and device give the same bits. Computes in training mode; torch's global
    generators are left as they were. Floating-point inputs are cast to ``dtype``. Not for two threads at once.
    """

    def __init__(
        self,
        task: Task,
        examples: Examples,
        layout: Layout,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        options: LocalOptions | None = None,
    ) -> None:
        if not len(examples):
            raise ConfigError("this client has no examples")
        self.task = task
        self.examples = examples
        self.layout = layout
        self.dtype = dtype
        self.device = torch.device(device)
        self.options = options if options is not None else LocalOptions()
        self._flat = FlatModel(initial_model(task), layout, dtype, self.device)
        self._dropouts = [m for m in self._flat.module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        self._tally = _Tally(torch.zeros((), device=self.device))

    # -- the oracle ----------------------------------------------------------------------------------------------

    def full(self, x: Tensor) -> Tensor:
        """The mean gradient over all examples, dropout off; a new flat tensor. Draws nothing at random."""
        with self._work(x, WHOLE):
            for layer in self._dropouts:
                layer.eval()
            self._flat.gradient.zero_()
            for indices in torch.split(torch.arange(len(self.examples), device=self.device), FULL_BATCH):
                self._add_gradient(indices, len(indices) / len(self.examples))
            return self._flat.gradient.clone()

    def sample(self, x: Tensor, key: Key) -> Tensor:
        """The mean gradient over the ``batch`` distinct examples that the key draws; a new flat tensor."""
        with self._work(x, key):
            total = len(self.examples)
            drawn = torch.from_numpy(choose(key.at("batch"), total, min(self.options.batch, total)))
            self._flat.gradient.zero_()
            self._add_gradient(drawn.to(self.device))
            return self._flat.gradient.clone()

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        """Local training from x; ``update`` is x minus where it ends, a new flat tensor.

        Batches follow a keyed order of all examples, a new order for each pass; the optimiser starts anew.
        """
        options = self.options
        with self._work(x, key):
            step = Stepper(options, self._flat)
            steps = options.steps_of(len(self.examples))
            for indices in islice(self._batches(key), steps):
                self._flat.gradient.zero_()
                self._add_gradient(indices)
                if correction is not None:
                    self._flat.gradient.add_(correction)
                step()
            return Local(x.to(self._flat.vector) - self._flat.vector, steps, options.rate)

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last call: mean ``train_loss`` over the ``examples`` it went through, and ``seconds``."""
        tally = self._tally
        mean = tally.loss.item() / max(tally.examples, 1)
        return {"train_loss": mean, "examples": float(tally.examples), "seconds": tally.seconds}

    # -- the model -----------------------------------------------------------------------------------------------

    def model(self, x: Tensor, buffers: Tensor | None = None) -> nn.Module:
        """The warm model at x (and with these buffers), in evaluation mode; the next call of the oracle changes it."""
        self._flat.load(x)
        if buffers is not None:
            self._flat.buffers = buffers
        return self._flat.module.eval()

    @property
    def buffer_layout(self) -> Layout | None:
        """The layout of the floating-point buffers; None when there are none."""
        return self._flat.buffer_layout

    @property
    def buffers(self) -> Tensor:
        """The floating-point buffers, flat, a copy; empty when there are none. Integer buffers stay local."""
        return self._flat.buffers

    @buffers.setter
    def buffers(self, value: Tensor) -> None:
        self._flat.buffers = value

    def load_frozen(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the frozen parameters by name. Raises ConfigError when names or shapes are not the model's."""
        self._flat.load_frozen(tensors)

    def frozen_digest(self) -> bytes:
        """Sixteen bytes over the frozen parameters; empty when there are none."""
        return frozen_digest(self._flat.module, self.layout)

    # -- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _work(self, x: Tensor, key: Key) -> Iterator[None]:
        """The model at x in training mode, torch's generators seeded by the key, the clock running."""
        self._flat.load(x)
        self._flat.module.train()
        self._tally = _Tally(torch.zeros((), dtype=self.dtype, device=self.device))
        with ExitStack() as stack:
            stack.enter_context(seeded(key.at("dropout"), self.device))
            stack.enter_context(reproducible(self.device))
            stack.enter_context(torch.enable_grad())
            yield
        self._tally.seconds = time.perf_counter() - self._tally.started

    def _add_gradient(self, indices: Tensor, weight: float = 1.0) -> None:
        batch = to_dtype(self.examples.batch(indices, self.device), self.dtype)
        loss = self.task.loss(self._flat.module, batch)
        self._flat.backward(loss if weight == 1.0 else loss * weight)
        self._tally.loss += loss.detach() * len(indices)
        self._tally.examples += len(indices)

    def _batches(self, key: Key) -> Iterator[Tensor]:
        """Batches of indices without end: one keyed order after the other; the last batch of each may be smaller."""
        for number in count():
            order = torch.from_numpy(permutation(key.at(f"pass {number}"), len(self.examples)))
            yield from torch.split(order.to(self.device), self.options.batch)
