"""docs/compressors.md, from the compressors' own documentation and a measured table.

python -m benchmarks.codecs --json docs/codecs.json      # on an idle machine
python -m thinwire.cli.compressor_page                    # writes docs/compressors.md
"""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import compressors
from thinwire.cli.compressor_facts import CompressorFacts

HEAD, MEASURED, PAGE = "compressors.head.md", "codecs.json", "compressors.md"


def page(docs: Path) -> str:
    """The whole page, from the head and the measurements in ``docs``."""
    names = sorted(compressors.registry())
    rows = json.loads((docs / MEASURED).read_text())
    contents = "\n".join(f"- [{name}](#{name}): {CompressorFacts(name).title}" for name in names)
    parts = [(docs / HEAD).read_text().rstrip(), measured(rows), f"## The compressors\n\n{contents}"]
    return "\n\n".join([*parts, *(section(CompressorFacts(name)) for name in names)]) + "\n"


def section(facts: CompressorFacts) -> str:
    """One compressor."""
    documentation = (inspect.getdoc(facts.kind) or "").replace("``", "`")
    lines = [f"### {facts.name}", "", documentation, ""]
    kind = "exact" if facts.exact else "a bound"
    lines.append(f"*{facts.classes}; {facts.constant} ({kind}) for `{facts.form!r}` on a matrix of 100 x 100.*")
    if facts.options:
        lines += ["", "| option | type | default | |", "|---|---|---|---|"]
        lines += [f"| `{o.name}` | {_cell(o.kind)} | {_cell(o.default)} | {_cell(o.meaning)} |" for o in facts.options]
    return "\n".join(lines)


def measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the benchmark, the largest vector of each compressor on each device."""
    shown: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["dim"])):
        shown.setdefault((row["codec"], row["device"]), {})[row["data"]] = row
    lines = [
        "## Measured",
        "",
        "`python -m benchmarks.codecs --json docs/codecs.json`: bits per entry on Gaussian entries, times the fewest",
        "that any code of the same symbols needs; the relative squared error on Gaussian entries and on heavy tails;",
        "GB/s of float32 input, encoded and decoded, beside a copy of the vector in the same run.",
        "",
        "| compressor | device | entries | bits | x bound | error | heavy tails | encode | decode | copy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (codec, device), data in shown.items():
        row, heavy = data["gauss"], data["heavy"]
        bound = row["bound_bits_per_coordinate"]
        ratio = f"{row['bits_per_coordinate'] / bound:.3f}" if bound else ""
        size = f"{row['dim'] / 1e6:g} M | {row['bits_per_coordinate']:.3f} | {ratio}"
        error = f"{row['relative_error']:.2g} | {heavy['relative_error']:.2g}"
        speed = f"{row['encode_gbps']:.2f} | {row['decode_gbps']:.2f} | {row['memcpy_gbps']:.1f}"
        lines.append(f"| `{codec}` | {device} | {size} | {error} | {speed} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: Sequence[str]) -> None:
    """Write the page into the folder of the documentation."""
    docs = Path(arguments[0] if arguments else "docs")
    (docs / PAGE).write_text(page(docs), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
