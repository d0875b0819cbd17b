"""Layout: how a flat vector is cut into the named tensors of a model."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """One named tensor of a layout."""

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The trainable entries of a model, in order, and the frozen ones beside them.

    A vector of this layout is one flat tensor of ``numel`` scalars: the trainable entries one after the other, each in
    C order. Frozen entries take no room in the vector; they are listed so that two nodes can prove they mean the same
    model (``digest``).
    """

    entries: tuple[Entry, ...]
    frozen: tuple[Entry, ...] = ()

    @staticmethod
    def flat(numel: int, name: str = "x") -> "Layout":
        """A single anonymous vector of ``numel`` scalars."""
        return Layout((Entry(name, (numel,)),))

    @staticmethod
    def of(module: nn.Module, trainable: Callable[[str], bool] | None = None) -> "Layout":
        """The layout of a module's parameters; those with ``requires_grad`` (and that ``trainable`` accepts) count.

        Raises ConfigError when nothing is left to train.
        """
        entries: list[Entry] = []
        frozen: list[Entry] = []
        for name, parameter in module.named_parameters():
            chosen = parameter.requires_grad and (trainable is None or trainable(name))
            (entries if chosen else frozen).append(Entry(name, tuple(parameter.shape)))
        if not entries:
            raise ConfigError("the model has no trainable parameter; unfreeze at least one")
        return Layout(tuple(entries), tuple(frozen))

    @cached_property
    def numel(self) -> int:
        """Number of scalars of a vector, the ``d`` of the papers."""
        return sum(entry.numel for entry in self.entries)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each entry in the vector, and ``numel`` at the end."""
        offsets = [0]
        for entry in self.entries:
            offsets.append(offsets[-1] + entry.numel)
        return tuple(offsets)

    def __hash__(self) -> int:
        """Of the digest, which is kept: layouts are looked up with every message."""
        return hash(self.digest)

    @cached_property
    def digest(self) -> bytes:
        """Sixteen bytes that two nodes compare to prove that they mean the same tensors."""
        text = repr([[(e.name, e.shape) for e in group] for group in (self.entries, self.frozen)])
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def pieces(self, vector: Tensor) -> Iterator[tuple[Entry, Tensor]]:
        """Each entry with its part of the vector, a flat view."""
        for entry, start in zip(self.entries, self.offsets, strict=False):
            yield entry, vector[start : start + entry.numel]

    def flatten(self, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """The vector of named tensors; names that the layout lacks are ignored. Copies."""
        parts = []
        for entry in self.entries:
            if entry.name not in tensors:
                raise ConfigError(f"tensor {entry.name!r} is missing; the model needs it with shape {entry.shape}")
            tensor = tensors[entry.name].detach()
            if tuple(tensor.shape) != entry.shape:
                raise ConfigError(
                    f"tensor {entry.name!r} has shape {tuple(tensor.shape)}; the model needs {entry.shape}"
                )
            parts.append(tensor.reshape(-1).to(dtype) if dtype is not None else tensor.reshape(-1))
        return torch.cat(parts)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of the vector under the entries' names and shapes."""
        return {entry.name: piece.view(entry.shape) for entry, piece in self.pieces(vector)}

    def name_at(self, index: int) -> str:
        """The name of the entry that holds a position of the vector."""
        for entry, start in zip(self.entries, self.offsets, strict=False):
            if start <= index < start + entry.numel:
                return entry.name
        raise IndexError(index)
