"""Adaptive server optimisers that torch does not have.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive federated optimization", ICLR 2021,
https://arxiv.org/abs/2003.00295 (Algorithm 2); FedAMS: Wang, Lin, Chen, "Communication-efficient adaptive federated
learning", ICML 2022, https://arxiv.org/abs/2205.02719 (Algorithm 1, option 2).

    m <- beta1 m + (1 - beta1) G
    v <- v + G^2                                        fedadagrad
    v <- v - (1 - beta2) G^2 sign(v - G^2)              fedyogi
    v <- beta2 v + (1 - beta2) G^2                      fedadam
    v <- beta2 v + (1 - beta2) G^2 ;  u <- max(u, v)    fedams; its steps take u for v
    x <- x - rate m / (sqrt(v) + tau)

G the aggregated direction of descent (their Delta, with the other sign); v starts at tau^2, m at 0; tau the degree of
adaptivity: the smaller, the more the step forgets of the sizes of G. All products are by entry.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from strategies.optimiser import BLOCK, Optimiser
from thinwire.layout import Layout

Rule = Literal["fedadagrad", "fedyogi", "fedadam", "fedams"]
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True)
class AdaptiveMemory:
    """Moments of the direction, flat, float64 so that small changes of v are not lost."""

    m: Tensor
    v: Tensor
    u: Tensor | None = None  # the largest v so far, under fedams


@dataclass(frozen=True)
class Adaptive(Optimiser):
    """One of the rules above. Their defaults are those of the papers' experiments."""

    rule: Rule
    rate: float = 0.01
    beta1: float = 0.9  # in [0, 1); the papers' FedAdagrad has 0
    beta2: float = 0.99  # in [0, 1); no part of fedadagrad
    tau: float = 1e-3  # above 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf") or not 0 < self.tau < float("inf"):
            raise ValueError(f"rate = {self.rate} and tau = {self.tau} must be positive and finite")
        if not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise ValueError(f"beta1 = {self.beta1} and beta2 = {self.beta2} must lie in [0, 1)")

    def begin(self, layout: Layout) -> AdaptiveMemory:
        """m = 0, v = tau^2."""
        m = torch.zeros(layout.numel, dtype=torch.float64)
        v = torch.full_like(m, self.tau**2)
        return AdaptiveMemory(m, v, v.clone() if self.rule == "fedams" else None)

    def step(
        self, x: Tensor, direction: Tensor, memory: AdaptiveMemory, layout: Layout
    ) -> tuple[Tensor, AdaptiveMemory]:
        """One step in float64; the memory is reused."""
        moved = torch.empty_like(x)
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            g, m, v = direction[part].to(memory.m), memory.m[part], memory.v[part]
            m.copy_(self.beta1 * m + (1 - self.beta1) * g)
            v.copy_(self._second(v, g * g))
            if memory.u is not None:
                v = memory.u[part].copy_(torch.maximum(memory.u[part], v))
            moved[part] = x[part] - (self.rate * m / (v.sqrt() + self.tau)).to(x)
        return moved, memory

    def _second(self, v: Tensor, square: Tensor) -> Tensor:
        if self.rule == "fedadagrad":
            return v + square
        if self.rule == "fedyogi":
            return v - (1 - self.beta2) * square * torch.sign(v - square)
        return self.beta2 * v + (1 - self.beta2) * square
