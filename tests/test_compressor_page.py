"""docs/compressors.md is what the compressors say of themselves."""

import json
from pathlib import Path

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from benchmarks import codecs
from compressors import registry
from compressors.top_k import TopK
from thinwire.cli.compressor_page import page
from thinwire.cli.listing import explain_compressor, list_compressors

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_is_fresh():
    assert (DOCS / "compressors.md").read_text(encoding="utf-8") == page(DOCS), (
        "run python -m thinwire.cli.compressor_page"
    )


def test_every_compressor_is_on_the_page_and_in_its_measured_table():
    text = (DOCS / "compressors.md").read_text(encoding="utf-8")
    measured = {row["codec"].partition("(")[0] for row in json.loads((DOCS / "codecs.json").read_text())}
    assert measured == set(registry())
    assert all(f"\n### {name}\n" in text for name in registry())


def test_the_measured_sizes_meet_their_targets():
    rows = json.loads((DOCS / "codecs.json").read_text())
    bits = {(row["codec"], row["data"]): row["bits_per_coordinate"] for row in rows if row["dim"] == 1_000_000}
    assert bits["top-k(values=fp32)", "gauss"] <= 0.405
    assert bits["top-k", "gauss"] <= 0.245
    for row in rows:
        bound = row["bound_bits_per_coordinate"]
        if bound and row["data"] == "gauss":
            assert row["bits_per_coordinate"] <= 1.02 * bound, row
        if row["data"] == "heavy" and row["codec"] in ("blockwise-8bit", "qsgd", "dithering"):
            assert row["relative_error"] < 1e-2
        if row["data"] == "heavy" and row["codec"] == "eden":
            assert row["relative_error"] < 2e-2


def test_the_benchmark_measures_what_the_page_shows(tmp_path, capsys):
    rows = list(codecs.measure([TopK(0.1, "fp32")], [1], 1, side=100))
    assert {row.data for row in rows} == {"gauss", "heavy"}
    assert all(row.dim == 10_000 and row.bits_per_coordinate > 2.5 for row in rows)
    assert {codecs.shown(c).partition("(")[0] for c in codecs.compressors()} == set(registry())
    assert "top-k(fraction=0.1, values=fp32)" in codecs.line(rows[0])


def test_the_command_explains_one_and_lists_all(capsys):
    explain_compressor("svd", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["class"] == "contractive"
    assert {option["name"] for option in told["options"]} >= {"rank", "values"}
    list_compressors(as_json=True)
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(registry())
    assert listed["natural"]["omega"] == 0.125
    assert listed["natural"]["exact"]
    explain_compressor("qsgd", as_json=False)
    assert "levels" in capsys.readouterr().out
