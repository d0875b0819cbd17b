"""What the tests of monitoring share: rows of rounds, and scrapes over HTTP."""

import time
import urllib.request
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
DEADLINE_SECONDS = 60.0


class Scrape:
    """What one scrape of an endpoint says."""

    def __init__(self, address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=DEADLINE_SECONDS) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            self.text = response.read().decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """One sample; None where there is none."""
        return self.samples.get((name, frozenset(labels.items())))

    def sum(self, name: str) -> float:
        """Over all labels."""
        return sum(value for (found, _), value in self.samples.items() if found == name)

    def labels(self, label: str) -> set[str]:
        """All values of a label."""
        return {dict(pairs)[label] for _, pairs in self.samples if label in dict(pairs)}


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {DEADLINE_SECONDS:.0f} s"
        time.sleep(0.02)
    return value


def a_roster(clients: int) -> dict[str, Any]:
    return {"clients": [{"name": f"c{index}", "weight": 1 / clients, "examples": 10} for index in range(clients)]}


def a_row(number: int, **changes: Any) -> dict[str, Any]:
    """As ``strategies.flower`` records it: 0, 1 and 2 were asked, 2 did not reply."""
    row = {
        "loss": 0.5,
        "accuracy": 0.75,
        "client_accuracy": 0.5,
        "round": number,
        "attempt": 0,
        "seconds": 2.0,
        "uplink_bytes": 300,
        "downlink_bytes": 700,
        "dense_bytes": 20_000,
        "asked": [0, 1, 2],
        "replied": [0, 1],
        "client_bytes": {"0": [100, 200], "1": [200, 200], "2": [0, 300]},
        "client_seconds": {"0": 0.75, "1": 1.5},
        "train": {"train_loss": 0.25, "examples": 10.0, "seconds": 0.5, "compression_error": 0.125},
        "downlink_error": 0.0625,
    }
    return {**row, **changes}
