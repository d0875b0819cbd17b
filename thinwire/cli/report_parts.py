"""The parts of a report that need no script: header, tiles, tables, configuration, and how to reproduce the run."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from thinwire.cli.curves import Curve
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.reproducing import commands, model_digest
from thinwire.cli.run_labels import differences, flat
from thinwire.cli.run_summary import Summary, reached
from thinwire.cli.words import amount, duration
from thinwire.config import to_toml

DENSE = {"identity": "dense"}
CHANGED = "changed"  # event: the operator gave a key another value


def lede(run: RecordedRun) -> str:
    """The run in one sentence."""
    up, down = (DENSE.get(name, name) for name in (run.part("uplink"), run.part("downlink")))
    both = f"{up} both ways" if up == down else f"{up} up, {down} down"
    clients, options = run.options.get("clients"), run.options
    share = options.get("participation", {}).get("fraction") if isinstance(options.get("participation"), dict) else None
    asked = f", {_percent(share, 0)} asked per round" if isinstance(share, (int, float)) and share < 1 else ""
    who = f"{clients} clients{asked}" if clients else ""
    parts = [run.part("method"), both if up and down else "", run.part("task"), who, f"seed {options.get('seed', 0)}"]
    return " · ".join(escape(part) for part in parts if part)


def reason(run: RecordedRun) -> str:
    """Why it stopped or failed, if the record says so."""
    return f'<p class="notice">It {escape(run.info.state)}: {escape(run.info.reason)}</p>' if run.info.reason else ""


def tiles(run: RecordedRun, summaries: Sequence[Summary]) -> str:
    """The numbers that matter most, each with a note."""
    own = summaries[0]
    found = []
    if own.accuracy is not None:
        found.append(("Test accuracy", _percent(own.accuracy), _beside(summaries)))
    if own.loss is not None:
        found.append(("Test loss", f"{own.loss:.4f}", "no longer finite at the end" if own.diverged else "at the end"))
    planned = f"of {run.planned_rounds:,}" if run.planned_rounds else ""
    found.append(("Rounds", f"{own.rounds:,}", planned))
    if own.simulated_seconds is None:
        found.append(
            ("Time", duration(own.seconds), f"{_brief(own.seconds / own.rounds)} a round" if own.rounds else "")
        )
    else:
        found.append(("Time, simulated", duration(own.simulated_seconds), f"{duration(own.seconds)} to simulate"))
    up, down = own.dense_up_bytes, own.dense_down_bytes
    both = own.uplink_bytes + own.downlink_bytes
    found.append(("Sent up", amount(own.uplink_bytes), _fewer(up, own.uplink_bytes)))
    found.append(("Sent down", amount(own.downlink_bytes), _fewer(down, own.downlink_bytes)))
    found.append(("Both ways", amount(both), _fewer(up + down, both)))
    share = own.replied / own.asked if own.asked else None
    found.append(
        (
            "Answers",
            "-" if share is None else _percent(share, 1),
            f"{own.replied:,} of {own.asked:,} asked" if own.asked else "",
        )
    )
    return "\n".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>'
        for name, value, note in found
    )


def comparison(summaries: Sequence[Summary], curves: Sequence[Curve], targets: Mapping[str, float]) -> str:
    """A row for each run, where there are several or there is a target to reach."""
    if len(summaries) < 2 and not targets:
        return ""
    simulated = all(own.simulated_seconds is not None for own in summaries)
    head = ["Run", "Accuracy", "Loss", "Rounds", "Simulated" if simulated else "Time", "Up", "Down", "Both ways"]
    goals = [f"To {metric} {_goal(metric, value)}" for metric, value in targets.items()]
    body = []
    for place, (own, curve) in enumerate(zip(summaries, curves, strict=True)):
        cells = [
            "-" if own.accuracy is None else _percent(own.accuracy),
            "-" if own.loss is None else f"{own.loss:.4f}",
            f"{own.rounds:,}",
            duration((own.simulated_seconds if simulated else own.seconds) or 0.0),
            amount(own.uplink_bytes),
            amount(own.downlink_bytes),
            _fewer(own.dense_up_bytes + own.dense_down_bytes, own.uplink_bytes + own.downlink_bytes).removesuffix(
                " than dense"
            ),
        ]
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        row += "".join(_cost(found) for found in reached(curve, targets).values())
        name = escape(own.label) + (f" <small>{escape(own.progress)}</small>" if own.progress != "finished" else "")
        body.append(f'<tr><th scope="row"><i class="swatch s{place}" aria-hidden="true"></i>{name}</th>{row}</tr>')
    return _table("Runs side by side", [*head, *goals], body, "runs")


def difference_table(names: Sequence[str], runs: Sequence[RecordedRun]) -> str:
    """What the runs' configurations do not agree on; nothing for one run."""
    keys = [flat(run.options) for run in runs]
    rows = []
    for key in differences(keys) if len(runs) > 1 else []:
        cells = "".join(f"<td>{escape(_value(options.get(key)))}</td>" for options in keys)
        rows.append(f'<tr><th scope="row"><code>{escape(key)}</code></th>{cells}</tr>')
    return _table("What differs", ["Key", *names], rows) if rows else ""


def configuration(run: RecordedRun) -> str:
    """The whole of it, as TOML."""
    return escape(to_toml(run.options)).strip()


def reproduction(run: RecordedRun, versions: Mapping[str, str]) -> str:
    """Command lines, versions, seed, and the digest of the model that must come out."""
    found = []
    for what, lines in commands(run):
        found.append(
            f"<h3>{escape(what)}</h3>"
            f'<div class="command"><pre tabindex="0" aria-label="{escape(what)}"><code>{escape(lines)}</code></pre>'
            '<button type="button" class="copy" hidden>Copy</button></div>'
        )
    facts = [("Seed", str(run.info.seed)), ("Ran with", f"Thinwire {run.info.software or 'of an unknown version'}")]
    facts.append(("This page", ", ".join(f"{name} {version}" for name, version in versions.items())))
    facts += [("Run", run.info.run)] if run.info.run else []
    digest = model_digest(run)
    facts += [("model.safetensors", f"SHA-256 {digest}")] if digest else []
    facts_html = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    note = (
        "The same configuration gives the same model, bit for bit, on the same device and with the same versions; "
        "the digest below is then the same. Options that stand at their defaults are left out of the command lines."
    )
    if any(event.get("event") == CHANGED for event in run.events):
        note += " This run was changed by its operator while it went on: the lines stand for its last configuration."
    return f'{"".join(found)}<p class="note">{note}</p><dl class="facts">{facts_html}</dl>'


def _table(caption: str, head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<h3>{escape(caption)}</h3><div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f'<table class="{kind}"><thead><tr>{columns}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _beside(summaries: Sequence[Summary]) -> str:
    own, others = summaries[0], [other for other in summaries[1:] if other.accuracy is not None]
    if len(others) == 1 and others[0].accuracy is not None:
        return f"{_percent(others[0].accuracy)} {others[0].label}"
    return "" if own.best_accuracy is None else f"{_percent(own.best_accuracy)} at best"


def _cost(found: Mapping[str, float] | None) -> str:
    """A cell: what it took to get to a target."""
    if found is None:
        return '<td class="zero">not reached</td>'
    sent = f"<small>{amount(found['uplink_bytes'])} up</small><small>{amount(found['total_bytes'])} both ways</small>"
    return f"<td>round {found['round']:,}{sent}</td>"


def _goal(metric: str, value: float) -> str:
    return f"{100 * value:g}\u00a0%" if metric == "accuracy" else f"{value:g}"


def _fewer(dense: float, sent: float) -> str:
    return f"{dense / sent:,.1f}\u00a0× fewer than dense" if sent and dense else ""


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _brief(seconds: float) -> str:
    """Of a round, which may be short."""
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _value(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
