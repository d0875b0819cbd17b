"""The laboratory itself: what it runs, what it leaves, and that nothing but the request decides it."""

import csv
import json
import lzma
import re
import types
from pathlib import Path

import pytest
import torch
from lab_kit import Lab

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from strategies.loop import run
from strategies.problems import ridge
from strategies.trace import Trace
from thinwire.errors import ConfigError
from thinwire.lab.experiment import Entry, Figure, Fixed, Settings
from thinwire.lab.figures import draw
from thinwire.lab.jobs import entries
from thinwire.lab.libsvm import load_two_classes
from thinwire.lab.precision import Single
from thinwire.lab.registry import registry
from thinwire.lab.results import Curve
from thinwire.lab.runner import Plan

SMALL = ("error-feedback", "--quick", "--only", "top-1", "--rounds", "60")
KEYS = {"method", "compressor", "seed", "rounds", "error", "uplink_bytes", "downlink_bytes", "step"}


def test_experiments_are_listed_for_people_and_for_scripts(lab: Lab) -> None:
    rows = json.loads(lab("list", "--json").out)
    assert {row["name"] for row in rows} == set(registry())
    assert all(row["summary"] for row in rows)
    assert "ridge" in lab("list").out


@pytest.mark.parametrize("name", sorted(registry()))
@pytest.mark.parametrize("quick", [True, False])
def test_every_entry_of_every_experiment_can_be_built(name: str, quick: bool) -> None:
    settings = Settings(quick)
    cases = registry()[name].cases(settings)
    for (case, _), entry in entries(name, settings).items():
        assert case in cases
        entry.build()
    names = [figure.name for figure in registry()[name].figures(settings)]
    assert len(set(names)) == len(names)


def test_a_run_leaves_tables_curves_and_pictures(lab: Lab, tmp_path: Path) -> None:
    ended = lab(*SMALL, "--seeds", "2", "--out", "found", "--json")
    rows = json.loads(ended.out)
    assert {row["seed"] for row in rows} == {0, 1}
    assert all(set(row) >= KEYS for row in rows)
    found = tmp_path / "found"
    with (found / "summary.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [row["label"] for row in rows]
    with (found / "curves.csv").open(encoding="utf-8") as file:
        curves = list(csv.DictReader(file))
    for row in rows:
        own = [c for c in curves if (c["label"], c["seed"]) == (row["label"], str(row["seed"]))]
        assert int(own[-1]["round"]) == row["rounds"]
        assert float(own[-1]["uplink_bytes"]) == row["uplink_bytes"]
        assert float(own[0]["uplink_bytes"]) == 0
    for kind in ("png", "svg"):
        assert (found / f"three-clients.{kind}").stat().st_size > 5_000
    assert ended.err.count("\n") == len(rows)  # plain lines where there is no terminal


def test_the_same_request_gives_the_same_files_whatever_the_number_of_processes(lab: Lab, tmp_path: Path) -> None:
    lab(*SMALL, "--out", "one", "--processes", "1")
    lab(*SMALL, "--out", "two", "--processes", "2")
    assert (tmp_path / "two").is_dir()
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_table_says_what_it_cost_and_where_the_files_are(lab: Lab) -> None:
    ended = lab(*SMALL, "--out", "found")
    assert ended.code == 0
    for text in ("three clients", "EF21", "up", "down", "found"):
        assert text in ended.out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("rige",), "did you mean 'ridge'"),
        (("ridge", "--quick", "--only", "adam"), "no entry of ridge is called adam"),
        (("ridge", "--quick", "--seeds", "0"), "at least 1"),
        (("ridge", "--quick", "--data", "file"), "takes no --data"),
        (("logistic", "--quick", "--data", "absent.xz"), "cannot read absent.xz"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], fault: str, lab: Lab) -> None:
    ended = lab(*arguments)
    assert ended.code == 2
    assert fault in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_results_are_never_overwritten(lab: Lab) -> None:
    assert lab(*SMALL, "--out", "found").code == 0
    ended = lab(*SMALL, "--out", "found")
    assert ended.code == 2
    assert "holds results already" in ended.err


def test_an_entry_of_two_figures_is_run_once() -> None:
    for name in registry():
        settings = Settings(quick=True)
        listed = [(f.case, e.label) for f in registry()[name].figures(settings) for e in f.entries]
        assert len(Plan().jobs(registry()[name], settings)) == len(set(listed))


def test_libsvm_files_are_read_plain_and_compressed(tmp_path: Path) -> None:
    text = b"+1 1:0.5 3:2\n0 2:-1\n+1 3:1\n"
    (tmp_path / "plain").write_bytes(text)
    (tmp_path / "packed.xz").write_bytes(lzma.compress(text))
    for name in ("plain", "packed.xz"):
        features, targets = load_two_classes(tmp_path / name)
        assert features.tolist() == [[0.5, 0, 2], [0, -1, 0], [0, 0, 1]]
        assert targets.tolist() == [1, -1, 1]


@pytest.mark.parametrize("text", [b"+1 1:0.5\n+1 2:1\n", b"no numbers\n", b"1 1:1\n2 1:1\n3 1:1\n", b""])
def test_a_file_without_two_classes_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(text)
    with pytest.raises(ConfigError, match="data"):
        load_two_classes(tmp_path / "data")
    (tmp_path / "data.xz").write_bytes(text)
    with pytest.raises(ConfigError, match=r"data\.xz"):
        load_two_classes(tmp_path / "data.xz")


def test_single_precision_costs_four_bytes_a_value_and_still_converges() -> None:
    problem = ridge(0, 3, 30, 20)
    entry = Entry("GD", {"name": "fedavg"})
    method = entry.build().at(1 / problem.L)
    single = run(method, Single(problem), 400, until=1e-10, audit=False)
    double = run(method, problem, 400, until=1e-10, audit=False)
    assert single.errors[-1] <= 1e-10
    assert abs(len(single.errors) - len(double.errors)) <= 1
    assert single.contents[0] == (3 * 4 * 20, 3 * 4 * 20)
    assert double.contents[0] == (3 * 8 * 20, 3 * 8 * 20)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rounds = 10_000
    curve = Curve.of(Trace((1.0,) * (rounds + 1), (6,) * rounds, (4,) * rounds, 2, torch.zeros(0), ()))
    points = list(curve.points(100))
    assert len(points) <= 100
    assert points[0] == (0, 1.0, 0.0, 0.0)
    assert points[-1] == (rounds, 1.0, 3.0 * rounds, 2.0 * rounds)
    assert [point[0] for point in points] == sorted({point[0] for point in points})


def test_a_curve_that_leaves_all_bounds_is_drawn_up_to_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ended = [Entry("up", {"name": "ef21"}, step=Fixed(1e9))]
    figure = Figure("diverged", "Diverged", "ridge", ended)
    from thinwire.lab.experiment import Case
    from thinwire.lab.jobs import Bench

    problem = Single(ridge(0, 2, 12, 6))
    result = Bench(ended[0], Case(lambda seed: problem, 1e-9, 50), problem).result("ridge", 0)
    assert result.as_json()["error"] is None or result.error > 1e3
    assert len(draw(tmp_path, figure, "error", [result])) == 2


def test_the_experiment_of_the_contributing_page_is_one(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(\"\"\"Natural compression on.*?)```", page, re.S)
    example = types.ModuleType("example", code.split('"""')[1])
    exec(compile(code, "CONTRIBUTING.md", "exec"), vars(example))
    monkeypatch.setitem(registry(), "natural", example.EXPERIMENT)
    rows = lab("natural", "--quick", "--json", "--out", "found").rows
    assert rows["DIANA, natural"]["reached"]
    assert 2 * rows["DIANA, natural"]["uplink_bytes"] < rows["GD"]["uplink_bytes"]
