"""``thinwire report``: one HTML file that shows a run, works offline, and runs nothing but its own script."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy
import torch

import thinwire
from thinwire.cli.curves import Curve
from thinwire.cli.page_clients import clients
from thinwire.cli.page_curves import MOST_BESIDE, MOST_POINTS, curves, round_times
from thinwire.cli.page_events import events
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.report_parts import (
    comparison,
    configuration,
    difference_table,
    lede,
    reason,
    reproduction,
    tiles,
)
from thinwire.cli.run_labels import labels
from thinwire.cli.run_summary import Summary

STYLES = ("report.css",)
SCRIPTS = ("elements.js", "scales.js", "chart.js", "map.js", "clients.js", "events.js", "report.js")
UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def page(run: RecordedRun, others: Sequence[RecordedRun], targets: Mapping[str, float]) -> str:
    """The report of a run, compared with others. The same records give the same page.

    What peers have a say in (names, events, metrics) gets into the page as escaped text, or as JSON that the page's
    script makes text nodes of; a policy in the page's head lets no other script run, and nothing be fetched.
    """
    runs = [run, *others]
    names = labels(runs)
    drawn = [Curve.of(name, each.rows) for name, each in zip(names, runs, strict=True)]
    summaries = [Summary.of(each, curve) for each, curve in zip(runs, drawn, strict=True)]
    style, script = _packaged(STYLES), _wrapped(_packaged(SCRIPTS))
    shell = Template(files("thinwire.cli").joinpath("page", "report.html").read_text(encoding="utf-8"))
    return shell.substitute(
        policy=escape(_policy(style, script)),
        style=style,
        script=script,
        title=escape(run.name),
        state=escape(run.info.state),
        progress=escape(summaries[0].progress),
        lede=lede(run),
        reason=reason(run),
        tiles=tiles(run, summaries),
        comparison=comparison(summaries, drawn, targets) + difference_table(names, runs),
        configuration=configuration(run),
        reproduction=reproduction(run, _versions()),
        data=embedded(_data(names, runs, targets)),
        made=escape(f"Thinwire {thinwire.__version__}"),
    )


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element: no text in it can end the element or begin another."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: safe in any encoding
    return text.translate(UNSAFE)


def write(path: Path, text: str) -> None:
    """Whole or not at all, also while somebody looks at the one before."""
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_text(text, encoding="utf-8", errors="replace")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _data(names: Sequence[str], runs: Sequence[RecordedRun], targets: Mapping[str, float]) -> dict[str, Any]:
    run = runs[0]
    most = [MOST_POINTS if each is run else MOST_BESIDE for each in runs]
    shown = [{"label": names[place], **curves(each.rows, most[place])} for place, each in enumerate(runs)]
    return {
        "runs": shown,
        "clients": clients(run),
        "times": round_times(run.rows),
        "events": events(run.events),
        "started": run.info.started,
        "targets": dict(targets),
    }


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: this style, this script, and nothing from anywhere."""
    return f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packaged(names: Sequence[str]) -> str:
    folder = files("thinwire.cli").joinpath("page")
    return "\n" + "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def _wrapped(script: str) -> str:
    return f'\n"use strict";\n(() => {{{script}}})();\n'


def _versions() -> dict[str, str]:
    return {"Thinwire": thinwire.__version__, "PyTorch": torch.__version__, "NumPy": numpy.__version__}
