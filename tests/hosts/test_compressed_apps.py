"""A stock Flower app, compressed by five lines, on Flower's own engines."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from superlink_support import deployment

STOCK = Path(__file__).parents[2] / "examples" / "quickstart"
NODES = 2
ROUNDS = 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("hardened", [False, True], ids=["subprocesses", "processes, TLS and keys"])
def test_the_compressed_quickstart_runs_on_a_superlink(tmp_path: Path, hardened: bool) -> None:
    app = shutil.copytree(STOCK, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    subprocess.run(["git", "apply", "compressed.diff"], cwd=app, check=True, timeout=60)
    nodes = [{"partition-id": i, "num-partitions": NODES, "state": str(tmp_path / "states")} for i in range(NODES)]
    with deployment(tmp_path, nodes, hardened) as deployed:
        said = deployed.run(app, {"num-server-rounds": ROUNDS, "local-epochs": 1})
    lines = re.findall(r"Thinwire, (\w+): (\d) of 2 clients answered, ([\d.]+) kB up, ([\d.]+) kB down", said)
    assert [(kind, count) for kind, count, *_ in lines] == [("train", "2"), ("evaluate", "2")] * ROUNDS, said
    up, down = ([float(line[i]) for line in lines] for i in (2, 3))
    assert max(up[0], up[2]) < 15, "of 2 x 124 kB"
    assert down[0] > 2 * 124  # the first model travels whole
    assert max(down[1:]) < 15
    assert "uplink-bytes" in said
    (run,) = (tmp_path / "states" / "apps").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["client-00000", "client-00001"]
