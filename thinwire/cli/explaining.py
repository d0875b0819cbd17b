"""What a compressor or a method says of itself: its documentation, its options and what they mean, from its file."""

import dataclasses
import inspect
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compressors import Compressor

FIELD = re.compile(r"^    (\w+): [^#\n]*#\s*(.+)$", re.M)
"""A field of a dataclass with its comment behind it."""


@dataclass(frozen=True)
class Option:
    """One field that a configuration may set."""

    name: str
    kind: str  # its type, in words
    default: str
    meaning: str


def options_of(kind: type, built: frozenset[str] = frozenset()) -> tuple[Option, ...]:
    """The options of a registered class, without the fields that are ``built`` from other sections."""
    hints, comments = get_type_hints(kind), meanings(kind)
    return tuple(
        Option(f.name, _words(hints[f.name]), _default(f), comments.get(f.name, ""))
        for f in dataclasses.fields(kind)
        if f.init and f.name not in built and _settable(hints[f.name])
    )


def summary_of(kind: type) -> str:
    """The first line of the class's documentation."""
    return (kind.__doc__ or "").strip().splitlines()[0]


def title_of(kind: type) -> str:
    """The first line of its file, without the name in front of it."""
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    return first.partition(": ")[2].rstrip(".") or first.rstrip(".")


def page_of(kind: type) -> str:
    """The documentation of its file: authors, rule and symbols; then that of the class."""
    module = inspect.getdoc(inspect.getmodule(kind)) or ""
    return f"{module}\n\n{inspect.getdoc(kind) or ''}"


def print_page(kind: type, facts: Sequence[tuple[str, str]], options: Sequence[Option]) -> None:
    """The page of one part: its documentation, what follows from its code, and its options."""
    console = Console()
    for paragraph in page_of(kind).replace("``", "").split("\n\n"):
        rule = paragraph.startswith(" ")  # the update rule keeps its lines, whatever the width
        text = paragraph if rule else " ".join(paragraph.split())
        console.print(Text(text), "", soft_wrap=rule, sep="\n")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in facts:
        table.add_row(name, Text(value))
    console.print(table)
    if options:
        shown = Table(title="Options", title_justify="left", box=None, pad_edge=False)
        for column in ("", "type", "default", ""):
            shown.add_column(column)
        for option in options:
            shown.add_row(option.name, Text(option.kind), option.default, Text(option.meaning))
        console.print(Padding(shown, (1, 0, 0, 0)))


def meanings(kind: type) -> dict[str, str]:
    """Field to the comment behind it; a subclass's own comes last."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if dataclasses.is_dataclass(part):
            found |= dict(FIELD.findall(inspect.getsource(part)))
    return found


def _settable(hint: Any) -> bool:
    """Whether a configuration can say it: numbers, texts, truth values, and parts that are named."""
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    if get_origin(hint) in (Union, types.UnionType):
        return all(_settable(arg) for arg in inner)
    if get_origin(hint) in (Literal, tuple):
        return get_origin(hint) is Literal or all(arg is ... or _settable(arg) for arg in inner)
    return hint in (str, int, float, bool) or (inspect.isclass(hint) and dataclasses.is_dataclass(hint))


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(str(value) for value in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_words(arg) for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        return f"list of {_words(get_args(hint)[0])}"
    if inspect.isclass(hint) and issubclass(hint, Compressor):
        return "compressor"
    name = str(hint.__name__)
    return {"str": "text", "int": "integer", "float": "number", "bool": "true | false"}.get(name, name.lower())


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return "needed"
        value = field.default_factory()
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "name", value))
