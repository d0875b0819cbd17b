"""What the shell completes: names of methods, compressors and tasks, read from their files without importing any.

A shell waits for it at every press of a key, and PyTorch takes seconds. ``test_completion.py`` holds the names found
here to the registries.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:$", re.M)
NAMED = re.compile(r'^    name: ClassVar\[str\] = "([^"]+)"', re.M)
PRESET = re.compile(r'^    "([\w-]+)": Preset\(', re.M)
FRAMES = frozenset({"Descent", "Ordered"})  # methods that hold others, and are named by none

Completer = Callable[[str], list[str]]


def names_in(folder: str, roots: Iterable[str]) -> list[str]:
    """The names of the classes in a folder's files that descend from one of ``roots``."""
    bases: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for path in (ROOT / folder).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = list(CLASS.finditer(text))
        ends = [*(match.start() for match in found), len(text)][1:]
        for match, end in zip(found, ends, strict=True):
            bases[match[1]] = {base.partition("[")[0].strip() for base in (match[2] or "").split(",")}
            name = NAMED.search(text, match.end(), end)
            if name is not None:
                names[match[1]] = name[1]
    known = set(roots)
    while more := {kind for kind, above in bases.items() if kind not in known and above & known}:
        known |= more
    return sorted(name for kind, name in names.items() if kind in known and kind not in FRAMES)


def method_names() -> list[str]:
    """Those of ``strategies.registry``, and the presets."""
    presets = PRESET.findall((ROOT / "thinwire" / "presets.py").read_text(encoding="utf-8"))
    return sorted([*names_in("strategies", ("Estimator", "Method")), *presets])


def compressor_names() -> list[str]:
    """Those of ``compressors.registry``."""
    return names_in("compressors", ("Compressor",))


def task_names() -> list[str]:
    """Those of ``thinwire.tasks.registry``."""
    return names_in("thinwire/tasks", ("Task",))


def completed(names: Callable[[], list[str]]) -> Completer:
    """What typer asks for the words that may follow."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


methods, compressors, tasks = map(completed, (method_names, compressor_names, task_names))
