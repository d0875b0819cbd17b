"""What a client's local optimiser keeps from round to round (AdamW's moments, momentum), whatever the method.

It is private and local: it lies beside the method's own private state, is committed and rolled back with it, and starts
anew when that is lost. Methods know nothing of it: they ask an oracle that remembers.
"""

from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor

from strategies.base import Local, Method, Oracle, Packet, Round
from thinwire.random import Key


@dataclass(frozen=True)
class Remembering:
    """A method's private state and the local optimiser's memory; made only where there is a memory."""

    private: Any
    memory: Any


class RememberingOracle(Oracle, Protocol):
    """An oracle whose ``Local`` has a memory, and that takes it back."""

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None, memory: Any = None) -> Local:
        """Go on with the ``memory`` of an earlier answer, which is left as it is."""
        ...


class _Recalling:
    """The oracle that a method is given: its local training goes on with the memory, and leaves the next one."""

    def __init__(self, oracle: Oracle, memory: Any) -> None:
        self._oracle = oracle
        self.memory = memory

    def full(self, x: Tensor) -> Tensor:
        return self._oracle.full(x)

    def sample(self, x: Tensor, key: Key) -> Tensor:
        return self._oracle.sample(x, key)

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None) -> Local:
        if self.memory is None:
            local = self._oracle.local(x, key, correction)
        else:  # only such an oracle gave it
            local = cast(RememberingOracle, self._oracle).local(x, key, correction, self.memory)
        self.memory = local.memory
        return local

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)


def respond(method: Method, replica: Any, private: Any, oracle: Oracle, round: Round) -> tuple[Any, Packet]:
    """``method.respond`` with the memory in ``private``, which is not consumed; the next memory is in its answer."""
    recalling = _Recalling(oracle, private.memory if isinstance(private, Remembering) else None)
    after, uplink = method.respond(replica, private_of(private), recalling, round)
    return after if recalling.memory is None else Remembering(after, recalling.memory), uplink


def private_of(private: Any) -> Any:
    """The method's own private state."""
    return private.private if isinstance(private, Remembering) else private
