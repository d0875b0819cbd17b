"""LoRA: train low-rank adapters beside frozen linear layers (Hu et al., ICLR 2022, arXiv:2106.09685)."""

from collections.abc import Collection
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from thinwire.config import nearest
from thinwire.errors import ConfigError


class AdaptedLinear(nn.Module):
    """``y = W x + b + (alpha / rank) B A x``: W and b frozen, A (rank, inputs) random, B (outputs, rank) zero."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features).to(base.weight) / base.in_features**0.5)
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, inputs: Tensor) -> Tensor:
        """The base layer plus its adapter."""
        adapted: Tensor = self.base(inputs) + nn.functional.linear(inputs @ self.down.T, self.up) * self.scale
        return adapted


def add_adapters(model: nn.Module, patterns: Collection[str] = ("*",), rank: int = 4, alpha: float = 8.0) -> nn.Module:
    """Freeze the model and put adapters on the linear layers whose names match a pattern; changes and returns it.

    Only the adapters have ``requires_grad`` after, so ``Layout.of`` trains nothing else; unfreeze a head by hand where
    one is wanted. Raises ConfigError for a rank below 1 and for a pattern that matches no linear layer.
    """
    if rank < 1:
        raise ConfigError(f"rank = {rank} is below 1")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ConfigError(f"no linear layer matches {pattern!r}{nearest(pattern, layers)}")
    model.requires_grad_(False)
    for name, layer in layers.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, AdaptedLinear(layer, rank, alpha))
    return model
