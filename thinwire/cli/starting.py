"""``thinwire init``: configuration files with every key and its comment, or a project around a task of one's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from thinwire.errors import ConfigError

Folder = Annotated[Path | None, typer.Argument(help="Where to write; default: here, or NAME of --app.")]
App = Annotated[
    str | None, typer.Option("--app", metavar="NAME", help="A whole project: a task of your own, README and test too.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


def init(folder: Folder = None, app: App = None, force: Force = False, json_: Json = False) -> None:
    """Write run.toml and client.toml with every key, its comment and its default; with --app, a whole project."""
    from thinwire.cli.commented import client_toml, run_toml
    from thinwire.cli.project import project

    files = {"run.toml": run_toml(), "client.toml": client_toml()} if app is None else project(app)
    place = folder or Path(app or ".")
    written = [str(path) for path in write(place, files, force)]
    if json_:
        print(json.dumps({"folder": str(place), "files": written}))
        return
    for path in written:
        print(f"wrote {path}")
    go = "" if place == Path(".") else f"cd {place} && "
    print(f"next: {go}thinwire simulate -c run.toml")


def write(folder: Path, files: Mapping[str, str], force: bool) -> list[Path]:
    """The files into the folder: all, or none where one of them is there already. Raises ConfigError."""
    paths = {folder / name: text for name, text in files.items()}
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise ConfigError(f"{', '.join(there)} exists already; --force overwrites, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return list(paths)
