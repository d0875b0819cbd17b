"""A store that says how long its writes took."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from strategies.store import Entry, Saved, Spool, Store


@dataclass(frozen=True)
class TimedStore:
    """Another store; ``took("journal" | "checkpoint", seconds)`` hears of each write that a decision waits for."""

    inner: Store
    took: Callable[[str, float], None]

    def append(self, entry: Entry) -> None:
        """Write one journal entry."""
        started = time.perf_counter()
        self.inner.append(entry)
        self.took("journal", time.perf_counter() - started)

    def checkpoint(self, saved: Saved) -> None:
        """Write a checkpoint and start the journal anew."""
        started = time.perf_counter()
        self.inner.checkpoint(saved)
        self.took("checkpoint", time.perf_counter() - started)

    def load(self) -> tuple[Saved, Iterator[Entry]] | None:
        """The inner store's."""
        return self.inner.load()

    @property
    def mirrors(self) -> bool:
        """The inner store's."""
        return self.inner.mirrors

    def write_mirror(self, client: int, chain: bytes, mirror: Tensor) -> None:
        """The inner store's."""
        self.inner.write_mirror(client, chain, mirror)

    def read_mirror(self, client: int, chain: bytes) -> Tensor | None:
        """The inner store's."""
        return self.inner.read_mirror(client, chain)

    def spool(self) -> Spool:
        """The inner store's."""
        return self.inner.spool()

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """The inner store's."""
        self.inner.record(kind, fields)
