"""The options of local training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from strategies.torch_optimiser import torch_optimisers
from thinwire.config import nearest

SGD = "sgd"


@dataclass(frozen=True)
class LocalOptions:
    """What a client does at the point that it is given (``local.KEY`` in the configuration)."""

    work: Literal["steps", "minibatch", "full"] = "steps"  # what a method asks for: local training, or a gradient
    steps: int = 5  # local steps, where ``epochs`` is 0
    epochs: int = 0  # passes over the client's examples instead of ``steps``
    rate: float = 0.1  # local learning rate
    batch: int = 32  # examples per step; all of them where the client has fewer
    optimiser: str = SGD  # or a class of torch.optim by name, in any case
    momentum: float = 0.0  # in [0, 1), of an optimiser that has it
    weight_decay: float = 0.0  # at least 0, likewise
    options: Mapping[str, Any] = field(default_factory=dict)  # further ones of that class: betas, eps, nesterov
    keep: bool = False  # the optimiser's state from round to round, as private state; else it starts anew in each

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.epochs < 0:
            raise ValueError(
                f"steps = {self.steps} and batch = {self.batch} must be at least 1, epochs = {self.epochs} 0"
            )
        if not self.rate > 0:
            raise ValueError(f"rate = {self.rate} is not above 0")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueError(
                f"momentum = {self.momentum} must be in [0, 1), weight_decay = {self.weight_decay} at least 0"
            )
        if self.optimiser.lower() not in torch_optimisers():
            raise ValueError(
                f"optimiser {self.optimiser!r} is unknown{nearest(self.optimiser.lower(), torch_optimisers())}"
            )

    def steps_of(self, examples: int) -> int:
        """Local steps of a client with that many examples."""
        return self.epochs * -(-examples // self.batch) if self.epochs else self.steps
