"""docs/methods.md, from the methods' own documentation and from what follows from their code.

python -m thinwire.cli.method_page                    # writes docs/methods.md
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

from strategies.registry import method_names
from thinwire.cli.explaining import page_of
from thinwire.cli.method_facts import Facts
from thinwire.presets import PRESETS

HEAD, PAGE = "methods.head.md", "methods.md"

WHEN: Mapping[str, str] = {
    "ceg": "a baseline: what MASHA1 is without its anchor",
    "cgda": "a baseline for saddle points: the simplest, and the slowest",
    "dasha": "two gradients a round are cheap, and no round may be dense",
    "dcgd": "clients keep nothing, and a neighbourhood will do",
    "dcgd-star": "experiments: the best that any shift can do",
    "dgc": "momentum, and one entry of a thousand",
    "diana": "unbiased compressors and an exact solution",
    "double-squeeze": "both ways thin, and state that may be lost",
    "econtrol": "minibatches and very small messages",
    "ef-eg": "a baseline: what MASHA2 is without its anchor",
    "ef14": "clients that come rarely or lose their state",
    "ef21": "the default: networks and convex problems, any contractive compressor",
    "ef21-bc": "both ways thin, deterministic or large-batch gradients",
    "ef21-plus": "a deterministic compressor that is sometimes right at once",
    "ef21-sgdm": "gradients of minibatches",
    "extragradient": "the yardstick for saddle points",
    "fedavg": "the yardstick; clients that keep nothing",
    "gdci": "models are compressed, and a neighbourhood will do",
    "marina": "two gradients a round are cheap, and everyone is there when a round is dense",
    "masha1": "saddle points, games, constraints",
    "masha2": "saddle points with biased compressors; heavy tails",
    "rand-diana": "DIANA with shifts that heal themselves at their next refresh",
    "scaffold": "many local steps of clients that differ much",
    "vr-gdci": "models are compressed, and the solution is to be exact",
}
"""When to use each; a method without an entry is described by its first line."""


def page(docs: Path) -> str:
    """The whole page, from its head in ``docs``."""
    facts = [Facts(name) for name in method_names()]
    parts = [(docs / HEAD).read_text(encoding="utf-8").rstrip(), table(facts), "## One by one"]
    return "\n\n".join([*parts, *map(section, facts), presets()]) + "\n"


def table(methods: Sequence[Facts]) -> str:
    """One row for each method."""
    lines = [
        "## All of them",
        "",
        "C is a compressed vector, dense an uncompressed one; *mirrored*: the server keeps a copy of it too.",
        "The promises are for the strongest class of compressor that the method takes, with all clients and with half.",
        "",
        "| method | solves | uplink compressor | a client keeps | up, each round | down | all clients | half of them "
        "| step of theory | when to use it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for facts in methods:
        when = WHEN.get(facts.name, facts.summary)
        cells = (
            facts.solves,
            facts.takes,
            facts.state,
            facts.up,
            facts.down,
            facts.full,
            facts.partial,
            facts.step,
            when,
        )
        name = f"[`{facts.name}`](#{facts.name})"
        lines.append("| " + " | ".join([name, *(cell(text) for text in cells)]) + " |")
    return "\n".join(lines)


def section(facts: Facts) -> str:
    """One method: its file's documentation, with the rule as it stands there, and its options."""
    lines = [f"### {facts.name}", ""]
    for paragraph in page_of(facts.kind).split("\n\n"):
        rule = paragraph.startswith(" ")
        lines += ["```", dedent(paragraph).strip("\n"), "```", ""] if rule else [marked(paragraph), ""]
    if facts.fits:
        lines += [f"Compressors that fit: {', '.join(f'`{name}`' for name in facts.fits)}.", ""]
    if facts.options:
        lines += ["| option | type | default | |", "|---|---|---|---|"]
        lines += [f"| `{o.name}` | {cell(o.kind)} | {cell(o.default)} | {cell(o.meaning)} |" for o in facts.options]
    return "\n".join(lines).rstrip()


def presets() -> str:
    """What each stands for."""
    lines = ["## Presets", "", "Published combinations by one name; every key can be given another value.", ""]
    for name, preset in sorted(PRESETS.items()):
        sections = (
            f"`{part}.{key} = {_toml(value)}`" for part, keys in preset.sections.items() for key, value in keys.items()
        )
        lines.append(f"- **`{name}`**: {preset.summary} {', '.join(sections)}.")
    return "\n".join(lines)


def marked(paragraph: str) -> str:
    """A docstring's paragraph as Markdown: code in single ticks, subscripts and products left alone."""
    pieces = paragraph.split("``")
    plain = [piece.replace("*", "\\*").replace("_", "\\_").replace("<-", "&larr;") for piece in pieces[::2]]
    pieces[::2] = plain
    return "`".join(pieces)


def cell(text: str) -> str:
    """Text in a table."""
    return text.replace("``", "`").replace("|", "\\|").replace("*", "\\*")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def main(arguments: Sequence[str]) -> None:
    """Write the page into the folder of the documentation."""
    docs = Path(arguments[0] if arguments else "docs")
    (docs / PAGE).write_text(page(docs), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
