"""The model as a run sees it: trainable vector, buffers, frozen parameters; and as named arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout


@dataclass(frozen=True)
class Arrays:
    """Initial values with their layouts. Integer buffers (BatchNorm's step counters) stay where they are."""

    layout: Layout
    x: Tensor  # flat, trainable
    buffer_layout: Layout | None
    buffers: Tensor | None  # flat, floating-point buffers
    rest: Mapping[str, Tensor]  # frozen parameters and integer buffers: unchanged through the run

    @staticmethod
    def of(
        tensors: Mapping[str, Tensor], layout: Layout, buffer_layout: Layout | None, dtype: torch.dtype = torch.float32
    ) -> "Arrays":
        """Cut named tensors by layouts. Raises ConfigError when one is missing or has another shape."""
        taken = {e.name for e in layout.entries} | {e.name for e in (buffer_layout.entries if buffer_layout else ())}
        for entry in layout.frozen:
            if entry.name not in tensors:
                raise ConfigError(f"tensor {entry.name!r} is missing; the model needs it with shape {entry.shape}")
        return Arrays(
            layout,
            layout.flatten(tensors, dtype),
            buffer_layout,
            None if buffer_layout is None else buffer_layout.flatten(tensors, dtype),
            {name: tensor for name, tensor in tensors.items() if name not in taken},
        )

    def frozen_bytes(self) -> bytes:
        """The frozen parameters as safetensors, for clients that have others; empty when there are none."""
        names = [entry.name for entry in self.layout.frozen]
        return save_tensors({name: self.rest[name].detach().contiguous() for name in names}) if names else b""

    def named(self, x: Tensor, buffers: Tensor | None) -> dict[str, Tensor]:
        """All arrays by name, as a state dict, for given trainable values and buffers."""
        values = {**self.layout.unflatten(x), **self.rest}
        if self.buffer_layout is not None and buffers is not None:
            values |= self.buffer_layout.unflatten(buffers)
        return values
