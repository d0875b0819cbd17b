"""A sampler that learns the order of examples from their gradients, for any training loop of one's own.

    order = client.order.Balanced(len(dataset), batch_size=32)
    for epoch in range(epochs):
        for x, y in DataLoader(dataset, batch_sampler=order):
            optimiser.zero_grad(); loss(model(x), y).backward()
            order.observe(model.parameters())                     # before the optimiser's step
            optimiser.step()

PairBalance on one machine (Cooper et al., "Coordinating distributed example orders for provably accelerated training",
NeurIPS 2023): what is ordered are microbatches, whose gradients ``backward`` yields anyway; each always holds the same
examples. Memory: one sketch, and the sketches' pairs while an epoch lasts. Losing it costs the gain, nothing else.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from strategies.balancing import balance, next_order, pairs
from strategies.sketch import Sketch
from thinwire.errors import ConfigError
from thinwire.random import Key, permutation


class Balanced(Sampler[list[int]]):
    """A batch sampler in the order of PairBalance: every microbatch once an epoch, reordered from what was observed.

    Args:
        examples: how many there are.
        batch_size: of a microbatch; the last one may be smaller.
        sketch: numbers that stand for a gradient.
        seed: of the first order and of the sketch.
    """

    def __init__(self, examples: int, batch_size: int = 1, sketch: int = 256, seed: int = 0) -> None:
        if examples < 0 or batch_size < 1 or sketch < 1:
            raise ConfigError(
                f"examples = {examples} must be at least 0, batch_size = {batch_size} and sketch = {sketch} at least 1"
            )
        key = Key(seed, "sampler")
        mixed = permutation(key, examples).tolist()
        self._groups = [mixed[start : start + batch_size] for start in range(0, examples, batch_size)]
        self._order = permutation(key.at("order"), len(self._groups))
        self._sketch = Sketch(sketch, key)
        self._total = np.zeros(sketch)
        self._signs = np.zeros(0, np.uint8)
        self._first: Tensor | None = None
        self._given = self._seen = 0
        self._key, self._epoch = key, 0

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[list[int]]:
        """The microbatches of one epoch; the order is renewed first, if the last epoch was seen to its end."""
        if self._seen == len(self._groups) and len(self._signs) == pairs(len(self._groups)):
            self._order = next_order(self._order, self._signs)
        elif self._given:  # some gradients were not shown: what is known of them fits no order
            self._order = self._order[permutation(self._key.at("anew", round=self._epoch), len(self._order))]
        self._epoch += 1
        self._total[:] = 0
        self._signs, self._first = np.zeros(0, np.uint8), None
        self._given = self._seen = 0
        for group in self._order:
            self._given += 1
            yield self._groups[group]

    def observe(self, parameters: Iterable[Tensor]) -> None:
        """The gradients of the microbatch at hand, as ``backward`` left them in ``.grad``; in the loop's order.

        With workers that fetch ahead the sampler runs before the loop, so gradients are counted here. Raises
        ConfigError for more gradients than microbatches.
        """
        if self._seen >= len(self._groups):
            raise ConfigError(f"{self._seen + 1} gradients were observed of {len(self._groups)} microbatches")
        flat = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in parameters]
        row = self._sketch(torch.cat(flat).detach()).cpu().double()
        if self._seen % 2 == 0:
            self._first = row
        elif self._first is not None:
            difference = (self._first - row).numpy()[None]
            self._signs = np.append(self._signs, balance(self._total, difference)).astype(np.uint8)
        self._seen += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs between epochs."""
        return {"order": torch.from_numpy(self._order.copy()), "signs": torch.from_numpy(self._signs.copy())} | {
            "given": self._given,
            "seen": self._seen,
            "epoch": self._epoch,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. Raises ConfigError for another number of microbatches."""
        if sorted(saved["order"].tolist()) != list(range(len(self._groups))):
            raise ConfigError(f"the saved order is not one of {len(self._groups)} microbatches")
        self._order, self._signs = saved["order"].numpy().copy(), saved["signs"].numpy().copy()
        self._given, self._seen, self._epoch = saved["given"], saved["seen"], saved["epoch"]
