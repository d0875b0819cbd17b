"""``thinwire compressors`` and ``thinwire methods``."""

import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.table import Table

import compressors
from strategies.registry import registry as methods
from thinwire.cli.compressor_facts import CompressorFacts
from thinwire.cli.explaining import print_page
from thinwire.cli.method_facts import Facts
from thinwire.config import to_toml
from thinwire.presets import PRESETS, Preset


def list_compressors(*, as_json: bool) -> None:
    """Name, class, options, constants on a matrix of 10,000 entries, and first line of the documentation."""
    rows = []
    for name, kind in sorted(compressors.registry().items()):
        facts = CompressorFacts(name)
        rows.append(
            {
                "name": name,
                "class": facts.classes,
                "omega": facts.omega,
                "alpha": facts.alpha,
                "exact": facts.exact,
                "options": _options(kind),
                "summary": facts.summary,
            }
        )
    title = "Compressors; omega and alpha of the default options for a matrix of 100 x 100"
    _print(rows, as_json, f"{title}; thinwire compressors NAME explains one")


def explain_compressor(name: str, *, as_json: bool) -> None:
    """Its documentation, class and constants, what a message costs, and its options. Raises ConfigError."""
    facts = CompressorFacts(name)
    if as_json:
        print(json.dumps(facts.as_json()))
        return
    print_page(facts.kind, facts.lines(), facts.options)


def list_methods(*, as_json: bool) -> None:
    """Name, options and first line of the documentation; the presets last."""
    rows = [
        {"name": name, "options": _options(kind), "summary": _summary(kind)} for name, kind in sorted(methods().items())
    ]
    for name, preset in sorted(PRESETS.items()):
        rows.append({"name": name, "options": _sections(preset), "summary": f"Preset. {preset.summary}"})
    _print(rows, as_json, "Methods; thinwire methods NAME explains one")


def explain_method(name: str, *, as_json: bool) -> None:
    """The paper's rule, what fits the method and what it promises, and its options; or a preset's parts.

    Raises ConfigError.
    """
    if name in PRESETS:
        _explain_preset(name, as_json=as_json)
        return
    facts = Facts(name)
    if as_json:
        print(json.dumps(facts.as_json()))
        return
    print_page(facts.kind, facts.lines(), facts.options)


def _explain_preset(name: str, *, as_json: bool) -> None:
    """What it stands for, as it would stand in a file."""
    preset = PRESETS[name]
    if as_json:
        print(json.dumps({"name": name, "summary": preset.summary, "sections": _sections(preset)}))
        return
    console = Console()
    console.print(f"{name}, a preset: {preset.summary}", highlight=False, markup=False)
    console.print()
    console.print(to_toml(_sections(preset)), highlight=False, markup=False)


def _sections(preset: Preset) -> dict[str, Any]:
    return {section: dict(options) for section, options in preset.sections.items()}


def _options(kind: type) -> dict[str, Any]:
    """Fields with their defaults; a part that is built from another section has none and is left out."""
    fields = dataclasses.fields(kind)
    return {f.name: f.default for f in fields if isinstance(f.default, (str, int, float, bool))}


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _print(rows: list[dict[str, Any]], as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=title, title_justify="left")
    columns = [column for column in rows[0] if column != "options"]  # which fill a page; NAME explains them
    for column in columns:
        table.add_column(column, no_wrap=column == "name")
    for row in rows:
        table.add_row(*[_cell(row[column]) for column in columns])
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
