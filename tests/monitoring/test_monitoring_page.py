"""docs/monitoring.md lists what the endpoints export, and names what there is."""

import re
from pathlib import Path

import thinwire.flower  # noqa: F401  first: it imports flwr quietly

# isort: split
import yaml

from server.metrics import MOST_CLIENTS, MOST_TASK_METRICS
from strategies.compression_error import SAMPLE, SHARE
from thinwire.cli.metrics_page import page

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def test_the_page_is_fresh() -> None:
    assert page(ROOT / "docs") == TEXT, "run python -m thinwire.cli.metrics_page"


def test_the_tables_are_whole() -> None:
    assert len(re.findall(r"^\| `thinwire_(?!client_)", TEXT, re.M)) > 20
    assert len(re.findall(r"^\| `thinwire_client_", TEXT, re.M)) > 10
    assert "| `thinwire_bytes_total` | counter | `direction`, `client` |" in TEXT


def test_every_alert_is_on_the_page() -> None:
    (group,) = yaml.safe_load((ROOT / "docker" / "monitoring" / "alerts.yml").read_text())["groups"]
    assert re.findall(r"^\| `(Thinwire\w+)`", TEXT, re.M) == [rule["alert"] for rule in group["rules"]]


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert f"`server.metrics_clients` ({MOST_CLIENTS})" in TEXT
    assert f"at most {MOST_TASK_METRICS} such names" in TEXT
    assert f"more than {SAMPLE:,} entries" in TEXT
    assert f"every\n{SHARE}th" in TEXT


def test_files_that_the_page_names_are_there() -> None:
    for name in re.findall(r"`((?:docker|examples)/[\w./-]+)`", TEXT):
        assert (ROOT / name).exists(), name
