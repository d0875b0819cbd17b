"""Tables of docs/monitoring.md: what the endpoints export, from the registries themselves."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from client.metrics import ClientMetrics
from server.metrics import ServerMetrics
from thinwire.run_config import RunConfig

PAGE = "monitoring.md"
SUFFIXES = {"counter": "_total", "info": "_info"}


def page(docs: Path) -> str:
    """The page as it is, with fresh tables between the marks ``<!-- NAME metrics -->`` and ``<!-- end -->``."""
    text = (docs / PAGE).read_text(encoding="utf-8")
    server, client = ServerMetrics(RunConfig.of({})), ClientMetrics("")
    tables = {
        "server": table(server.registry, server.families.labels),
        "client": table(client.registry, client.labels),
    }
    for name, rows in tables.items():
        mark = f"<!-- {name} metrics -->"
        text = re.sub(rf"(?<={mark}).*?(?=<!-- end -->)", f"\n{rows}\n".replace("\\", r"\\"), text, flags=re.S)
    return text


def table(registry: CollectorRegistry, labels: Mapping[str, tuple[str, ...]]) -> str:
    """One row for each family of ours."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in registry.collect():
        if family.name.startswith("thinwire_"):
            name = family.name + SUFFIXES.get(family.type, "")
            own = ", ".join(f"`{label}`" for label in labels.get(name, ()))
            kind = "gauge" if family.type == "info" else family.type
            lines.append(f"| `{name}` | {kind} | {own} | {family.documentation} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Write the page into the folder of the documentation."""
    docs = Path(arguments[0] if arguments else "docs")
    (docs / PAGE).write_text(page(docs), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
