"""A stock Flower app and the five lines that compress it, as the README shows them."""

import importlib
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from server.grids.in_process import InProcessGrid
from strategies.compressed import Compressed
from thinwire.flower import new_context

from flwr.app import Context  # isort: skip
from flwr.serverapp.strategy import FedAvg, Result  # isort: skip

ROOT = Path(__file__).parents[2]
STOCK = ROOT / "examples" / "quickstart"
DIFF = STOCK / "compressed.diff"
NODES = 4
ROUNDS = 15  # as many as it takes to pay for the first model, which travels whole


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """The stock app and the compressed one, in folders of their own; what they import is forgotten afterwards."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pt", "*.diff")
    stock, thin = (shutil.copytree(STOCK, tmp_path / name, ignore=ignore) for name in ("stock", "thin"))
    subprocess.run(["git", "apply", str(DIFF)], cwd=thin, check=True, timeout=60)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield stock, thin
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "quickstart"]:
        del sys.modules[name]


def run(app: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Result, FedAvg | Compressed]:
    """What the app's own ``main`` trains, with its own configuration, and the strategy that it made."""
    forget()
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(app))
        server: ModuleType = importlib.import_module("quickstart.server_app")
        client: ModuleType = importlib.import_module("quickstart.client_app")
    config = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    config["num-server-rounds"] = ROUNDS
    torch.manual_seed(0)
    random.seed(0)
    found: list[tuple[Result, FedAvg | Compressed]] = []
    outer = Compressed if hasattr(server, "Compressed") else FedAvg
    start = outer.start

    def started(strategy: FedAvg | Compressed, *args: object, **kwargs: object) -> Result:
        found.append((start(strategy, *args, **kwargs), strategy))  # type: ignore[arg-type]
        return found[0][0]

    with monkeypatch.context() as patched:
        patched.setattr(outer, "start", started)
        server.main(InProcessGrid(client.app, NODES, 1, config), Context(1, 0, {}, new_context(1, 0, {}).state, config))
    return found[0]


def test_five_lines_cut_the_bytes_of_the_quickstart_by_twenty(
    apps: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, thin = apps
    (plain, _), (compressed, strategy) = run(stock, monkeypatch), run(thin, monkeypatch)
    assert isinstance(strategy, Compressed)
    reached = [result.evaluate_metrics_serverapp[ROUNDS]["accuracy"] for result in (plain, compressed)]
    assert reached[0] > 0.96
    assert reached[1] > reached[0] - 0.03
    up, down = (sum(getattr(e, f"{way}_bytes") for e in strategy.exchanges) for way in ("uplink", "downlink"))
    dense = sum(len(array.data) for array in plain.arrays.values()) * 3 * NODES * ROUNDS  # train twice, evaluate once
    assert dense == sum(e.dense_bytes for e in strategy.exchanges)
    assert dense > 20 * (up + down)
    assert (apps[1].parent / "final_model.pt").exists()


def test_the_diff_has_five_lines_and_the_readme_and_the_page_show_them() -> None:
    added = [line for line in DIFF.read_text().splitlines() if re.match(r"\+[^+]", line)]
    assert len(added) == 5
    for page in (ROOT / "README.md", ROOT / "docs" / "flower.md"):
        text = page.read_text(encoding="utf-8")
        assert all(line in text for line in added), f"{page.name} lacks a line of {DIFF.name}"
