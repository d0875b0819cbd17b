"""Who watches a run: a Prometheus endpoint, TensorBoard event files, hooks of one's own."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from server.event_files import EventFiles, check_tensorboard
from server.hooks import load_hook, start_hook
from server.metrics import MOST_CLIENTS, ServerMetrics
from server.run_directory import RunDirectory
from strategies.store import Store
from thinwire.config import build, to_options
from thinwire.prometheus import Endpoint, metrics_address
from thinwire.run_config import RunConfig


@dataclass(frozen=True)
class Monitoring:
    """Keys of the section ``server``."""

    metrics: str = ""  # host:port, or a port of this machine, where Prometheus may scrape; empty: nowhere
    metrics_clients: int = MOST_CLIENTS  # clients of a roster up to which each has label values of its own
    tensorboard: bool = False  # event files in the run directory; needs the extra tensorboard
    hooks: tuple[str, ...] = ()  # observers of one's own, package.module:Class

    @staticmethod
    def within(section: Any) -> "Monitoring":
        """These keys of a section that may have others. Raises ConfigError."""
        known = {field.name for field in fields(Monitoring)}
        given = section if isinstance(section, Mapping) else {}
        return build(Monitoring, {key: value for key, value in given.items() if key in known}, "server")

    def check(self) -> None:
        """Raises ConfigError for what cannot be had, before any folder is made."""
        if self.metrics:
            metrics_address(self.metrics)
        if self.tensorboard:
            check_tensorboard()
        for name in self.hooks:
            load_hook(name)


def observe(monitoring: Monitoring, config: RunConfig, folder: RunDirectory) -> None:
    """Add event files and hooks to the observers of a run directory. Raises ConfigError where one does not start."""
    options = to_options(config)
    if monitoring.tensorboard:
        rounds = folder.rounds()
        folder.observers.add(EventFiles(folder.path, options, rounds[-1]["round"] + 1 if rounds else 1))
    for name in monitoring.hooks:
        folder.observers.add(start_hook(name, load_hook(name), folder.path, options))


@contextmanager
def monitored(
    monitoring: Monitoring,
    config: RunConfig,
    folder: RunDirectory,
    connected: Callable[[], Iterable[str]] = tuple,
) -> Iterator[Store]:
    """Observed, and scraped for as long as the run goes on; yields the store to give to the strategy.

    Raises ConfigError where the address is taken or a hook does not start.
    """
    observe(monitoring, config, folder)
    if not monitoring.metrics:
        yield folder
        return
    metrics = ServerMetrics(config, connected, monitoring.metrics_clients)
    with Endpoint(monitoring.metrics, metrics.registry) as endpoint:
        sys.stderr.write(f"metrics are at http://{endpoint.address}/metrics\n")
        folder.observers.add(metrics)
        yield metrics.timed(folder)
