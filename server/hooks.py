"""Observers of one's own, named on the server's command line: MLflow, Weights & Biases, a pager."""

import importlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from server.observers import Observer
from thinwire.errors import ConfigError

Hook = Callable[[Path, Mapping[str, Any]], Observer]
"""Builds an observer from the run directory and the options of the run."""

MOST_WAITING = 10_000
"""Records that a slow observer may be behind; those that come then are dropped."""
CLOSE_SECONDS = 60.0

log = logging.getLogger(__name__)


def load_hook(name: str) -> Hook:
    """The hook ``package.module:Class``; modules of the current folder can be named. Raises ConfigError.

    It imports code, so only the operator of this machine may give the name, never a peer.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(f"hook {name!r} is not of the form package.module:Class")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of one's own may fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"hook {name!r} cannot be imported ({reason})") from None
    if not callable(found):
        raise ConfigError(f"hook {name!r} is no class and no function")
    hook: Hook = found
    return hook


def start_hook(name: str, hook: Hook, run_dir: Path, options: Mapping[str, Any]) -> Observer:
    """Its observer, in a thread of its own. Raises ConfigError where it cannot be built."""
    try:
        return InBackground(name, hook(run_dir, options))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"hook {name!r} failed to start: {type(error).__name__}: {error}") from error


class InBackground:
    """Another observer, told in a thread of its own, so that no round waits for a network.

    If it fails, that is logged, and it is told nothing more.
    """

    def __init__(self, name: str, inner: Observer, close_seconds: float = CLOSE_SECONDS) -> None:
        """``close_seconds``: for it to take what is left when the run is over."""
        self._name = name
        self._inner = inner
        self._close_seconds = close_seconds
        self._waiting: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(MOST_WAITING)
        self._full = False
        self._thread = threading.Thread(target=self._work, name=f"thinwire-hook-{name}", daemon=True)
        self._thread.start()

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Leave it for the thread; never waits."""
        try:
            self._waiting.put_nowait((kind, dict(fields)))
            self._full = False
        except queue.Full:
            if not self._full:
                log.warning("hook %s is %d records behind; what comes now is dropped", self._name, MOST_WAITING)
            self._full = True

    def close(self) -> None:
        """Let it take what is left."""
        try:
            self._waiting.put(None, timeout=self._close_seconds)
        except queue.Full:
            log.warning("hook %s stands still and is left behind", self._name)
            return
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            log.warning("hook %s did not end within %.0f s and is left behind", self._name, self._close_seconds)

    def _work(self) -> None:
        sound = True
        while (record := self._waiting.get()) is not None:
            if sound:
                sound = self._tell(self._inner.record, *record)
        self._tell(self._inner.close)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> bool:
        try:
            call(*arguments)
        except Exception:
            log.exception("hook %s failed and is told nothing more", self._name)
            return False
        return True
