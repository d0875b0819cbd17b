"""The gradient of every example of a batch, by ``torch.func``: what an order of examples is learnt from."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from client.flat import FlatModel
from thinwire.errors import ConfigError
from thinwire.tasks.base import Task
from thinwire.tasks.examples import convert

MOST_NUMBERS = 1 << 22
"""Of one chunk's gradients, which are a whole model each."""


class _Loss(nn.Module):
    """A task's loss as a module, so that its parameters can be given from outside."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, batch: Any) -> Tensor:
        return self._task.loss(self.model, batch)


def example_gradients(task: Task, flat: FlatModel, batch: Any, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients (rows x d) and losses (rows) of the ``count`` examples of a batch, a few rows at a time.

    As in ``FlatModel.backward``, those of parameters that ascend come with the other sign.
    Every example is given to the task's loss as a batch of one, so a mean over a batch of one must make sense: batch
    norm does not. Raises ConfigError where ``torch.func`` cannot follow the model.
    """
    module = _Loss(task, flat.module)
    names = [f"model.{entry.name}" for entry in flat.layout.entries]
    parameters = {name: parameter.detach() for name, parameter in zip(names, flat.parameters, strict=True)}

    def loss_of(given: dict[str, Tensor], example: Any) -> Tensor:
        return functional_call(module, given, (convert(example, lambda tensor: tensor.unsqueeze(0)),))  # type: ignore[no-any-return]

    each = vmap(grad_and_value(loss_of), in_dims=(None, 0), randomness="different")
    rows = max(1, MOST_NUMBERS // max(1, flat.layout.numel))
    for start in range(0, count, rows):
        some = convert(batch, lambda tensor, start=start: tensor[start : start + rows])  # type: ignore[misc]
        try:
            gradients, losses = each(parameters, some)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise ConfigError(
                "this model's loss has no gradient per example (batch norm and data-dependent code have none): choose "
                f"order.unit = batch; {str(error).splitlines()[0][:300]}"
            ) from None
        yield flat.turn(torch.cat([gradients[name].flatten(1) for name in names], 1)), losses.detach()
