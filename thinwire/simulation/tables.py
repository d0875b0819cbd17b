"""Tables that describe clients: CSV with a line of names first, or a JSON list of objects."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError


def read_table(path: str, columns: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[str, dict[str, float]]]:
    """The rows as (client, numbers by column). ``client`` is the first column; an ``optional`` one may lack.

    Raises ConfigError when the file cannot be read, lacks a column, has an unknown one, or holds what is no number.
    """
    rows = _read(Path(path))
    known = {"client", *columns, *optional}
    found = []
    for number, row in enumerate(rows, start=1):
        odd = sorted(str(name) for name in row.keys() - known)
        missing = sorted({"client", *columns} - row.keys())
        if odd or missing:
            fault = f"unknown column {odd[0]!r}" if odd else f"column {missing[0]!r} is missing"
            raise ConfigError(f"{path}, row {number}: {fault}; a row has client, {', '.join((*columns, *optional))}")
        numbers = {
            name: _number(path, number, name, row[name])
            for name in (*columns, *optional)
            if row.get(name) not in ("", None)
        }
        if len(numbers.keys() & set(columns)) < len(columns):
            raise ConfigError(f"{path}, row {number}: {', '.join(columns)} must all be given")
        found.append((str(row["client"]), numbers))
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if path.suffix != ".json":
        return [dict(row) for row in csv.DictReader(text.splitlines(), skipinitialspace=True)]
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} is not a list of objects, one for each row")
    return rows


def _number(path: str, row: int, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(f"{path}, row {row}: {name} = {value!r} is no number of at least 0")
    return number
