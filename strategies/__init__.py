"""Methods, one per file; the server's side of the protocol that runs them; and the adapters to Flower."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.compressed import Compressed

__all__ = ["Compressed"]


def __getattr__(name: str) -> Any:
    """``from strategies import Compressed`` imports Flower; nothing else here does."""
    if name == "Compressed":
        from strategies.compressed import Compressed

        return Compressed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
