"""Examples that can be drawn by index: tensors in memory, or any data set of torch.utils.data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from thinwire.errors import ConfigError
from thinwire.tasks.base import Examples


class TensorExamples(Examples):
    """Tensors of equal length; a batch is a tuple with the rows of each, in their own dtypes.

    With ``keep``, they move to the device that first asks for a batch and stay there; without, each batch is moved.
    Raises ConfigError when the lengths differ.
    """

    def __init__(self, *tensors: Tensor, keep: bool = True) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ConfigError(f"examples need tensors of one length, not {sorted(lengths) or 'none at all'}")
        self._tensors = tensors
        self._keep = keep

    def __len__(self) -> int:
        return len(self._tensors[0])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All rows."""
        return self._tensors

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        """The rows at ``indices`` (int64, on any device)."""
        if self._keep and self._tensors[0].device != device:
            self._tensors = tuple(tensor.to(device) for tensor in self._tensors)
        return tuple(t.index_select(0, indices.to(t.device)).to(device) for t in self._tensors)

    def subset(self, indices: Any) -> "TensorExamples":
        """A copy of the rows at ``indices`` (a tensor, array or list of integers)."""
        chosen = _as_indices(indices).to(self._tensors[0].device)
        return TensorExamples(*(tensor.index_select(0, chosen) for tensor in self._tensors), keep=self._keep)


class DatasetExamples(Examples):
    """Any map-style ``torch.utils.data.Dataset``; a batch is its items collated, moved to the device."""

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Any] = default_collate,
        indices: Sequence[int] | None = None,
    ) -> None:
        self._dataset = dataset
        self._collate = collate
        self._indices = range(len(dataset)) if indices is None else indices  # type: ignore[arg-type]  # map-style

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, indices: Tensor, device: torch.device) -> Any:
        """The items at ``indices`` (int64), collated."""
        items = [self._dataset[self._indices[index]] for index in indices.tolist()]
        return convert(self._collate(items), lambda tensor: tensor.to(device))

    def subset(self, indices: Any) -> "DatasetExamples":
        """The items at ``indices`` (a tensor, array or list of integers); nothing is read."""
        chosen = [self._indices[index] for index in _as_indices(indices).tolist()]
        return DatasetExamples(self._dataset, self._collate, chosen)


def _as_indices(indices: Any) -> Tensor:
    return indices if isinstance(indices, Tensor) else torch.tensor(indices, dtype=torch.int64)


def to_dtype(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its floating-point tensors in another dtype; integers stay."""
    return convert(batch, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def convert(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A batch with every tensor inside (of tuples, lists and mappings) changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, tuple):
        items = [convert(item, change) for item in batch]
        return cast(Any, type(batch))(*items) if hasattr(batch, "_fields") else tuple(items)
    if isinstance(batch, list):
        return [convert(item, change) for item in batch]
    if isinstance(batch, Mapping):
        return {name: convert(item, change) for name, item in batch.items()}
    return batch
