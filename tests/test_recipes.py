"""The recipes of CONTRIBUTING.md, as printed: each file is dropped into a copy of the tree, tested and trained with."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("thinwire", "compressors", "strategies", "client", "server")
RECIPE = re.compile(r"^`(\w+/\w+\.py)`:\n\n```python\n(.*?)^```$", re.M | re.S)
RUN = [
    "--clients",
    "4",
    "--rounds",
    "4",
    "--participation",
    "0.5",
    "--no-baseline",
    "--json",
    "--set",
    "task.hidden=[16]",
]
MAIN = (
    "import sys, thinwire; from thinwire.cli import main; assert thinwire.__file__.startswith(sys.argv.pop(1)); main()"
)


def recipes() -> dict[str, str]:
    return dict(RECIPE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the repository with the files of both recipes, and nothing else changed."""
    copy = tmp_path_factory.mktemp("tree").resolve()
    for folder in (*ROOMS, "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name, code in recipes().items():
        assert not (copy / name).exists(), f"{name} of CONTRIBUTING.md is taken: choose another example"
        (copy / name).write_text(code, encoding="utf-8")
    return copy


def python(tree: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "THINWIRE_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def thinwire(tree: Path, *arguments: str) -> dict | list:
    return json.loads(python(tree, "-c", MAIN, str(tree), *arguments).splitlines()[-1])


def test_both_recipes_are_there():
    assert sorted(recipes()) == ["compressors/plus_minus.py", "strategies/smoothed.py"]


def test_the_new_compressor_trains_with_feedback(tree):
    result = thinwire(tree, "simulate", "--uplink", "plus-minus", *RUN)
    assert (result["method"], result["uplink"], result["rounds"]) == ("ef21", "plus-minus", 4)
    assert result["loss"] < 2.4
    assert 0 < result["uplink_bytes"] < result["dense_bytes"] / 2 / 5  # a bit an entry, and the messages around it


def test_the_new_method_trains_with_an_option_of_its_own(tree):
    named = ("--method", "smoothed", "--uplink", "rand-k", "--set", "uplink.fraction=0.5", "--set", "method.beta=0.25")
    result = thinwire(tree, "simulate", *named, *RUN)
    assert (result["method"], result["uplink"]) == ("smoothed", "rand-k")
    assert result["loss"] < 2.4
    assert "beta = 0.25" in (tree / result["run_dir"] / "run.toml").read_text(encoding="utf-8")


def test_both_are_listed_with_their_options(tree):
    compressors = {row["name"]: row for row in thinwire(tree, "compressors", "--json")}
    assert compressors["plus-minus"]["alpha"] == 1 / 10_000
    methods = {row["name"]: row for row in thinwire(tree, "methods", "--json")}
    assert methods["smoothed"]["options"] == {"beta": 0.5}


def test_what_theory_refuses_is_refused(tree):
    with pytest.raises(AssertionError, match="error: smoothed needs an unbiased compressor, not 'top-k'"):
        thinwire(tree, "simulate", "--method", "smoothed", "--uplink", "top-k", *RUN)


def test_the_contract_tests_find_the_compressor(tree):
    arguments = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/compressors/test_contract.py",
        "-k",
        "PlusMinus",
    )
    passed = re.search(r"(\d+) passed", python(tree, *arguments))
    assert passed is not None
    assert int(passed[1]) >= 20


def test_the_invariants_of_every_method_find_the_method(tree):
    where = "tests/strategies/test_every_method.py"
    passed = re.search(
        r"(\d+) passed", python(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", where, "-k", "smoothed")
    )
    assert passed is not None
    assert int(passed[1]) >= 20
