"""docs/methods.md is what the methods say of themselves."""

import re
from pathlib import Path

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from compressors import registry as compressors
from strategies.registry import method_names
from thinwire.cli.method_page import WHEN, page
from thinwire.presets import PRESETS

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_is_fresh() -> None:
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == page(DOCS), "run python -m thinwire.cli.method_page"


def test_every_method_and_preset_is_on_the_page_and_says_when_to_use_it() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    for name in method_names():
        assert f"\n### {name}\n" in text
        assert f"\n| [`{name}`](#{name}) |" in text
    assert all(f"**`{name}`**" in text for name in PRESETS)
    assert set(WHEN) == set(method_names())


def test_the_guide_names_only_what_there_is() -> None:
    head = (DOCS / "methods.head.md").read_text(encoding="utf-8")
    rows = [line for line in head.splitlines() if line.startswith("| ")][2:]
    known = {*method_names(), *compressors(), *PRESETS, "ef21-p", "direct", "absence_decay", "prox", "downlink = top-k"}
    assert len(rows) >= 10
    for row in rows:
        assert set(re.findall(r"`([^`]+)`", row)) <= known, row
