"""``thinwire runs``: the run directories of a folder; look at them, compare them, take their numbers out, clear up."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinwire.cli.whereabouts import RUNS, newest, run_directories
from thinwire.errors import ConfigError

if TYPE_CHECKING:
    from thinwire.cli.run_folders import Listed
    from thinwire.cli.run_pruning import Removed

app = typer.Typer(no_args_is_help=True, help="Runs: list, show, compare, export and prune run directories.")

Root = Annotated[Path, typer.Option(help="Folder of the run directories.")]
Run = Annotated[
    str,
    typer.Argument(
        help="A run directory, or its name below --root.", autocompletion=run_directories, show_default=False
    ),
]
Newest = Annotated[
    str | None,
    typer.Argument(
        help="A run directory, or its name below --root; default: the newest there, one that runs before any other.",
        autocompletion=run_directories,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else on standard output.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", help="Only these: finished, stopped, failed, killed or running. Repeatable."),
]


@app.command("list")
def list_(
    root: Root = RUNS,
    state: States = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    json_: Json = False,
) -> None:
    """List the runs below a folder, the newest first: how each stands, what came out, and what it takes on disk."""
    from thinwire.cli.run_folders import STATES, find

    unknown = [one for one in state or () if one not in STATES]
    if unknown:
        raise ConfigError(f"--state {unknown[0]} is unknown; choose among {', '.join(STATES)}")
    found = [run for run in find(root) if not state or run.state in state][:limit]
    if json_:
        print(json.dumps([run.as_json() for run in found]))
        return
    if found:
        _print_list(found)
    else:
        print(f"no runs in {root}")
    for run in found:
        if run.trouble:
            sys.stderr.write(f"{run.name}: {run.trouble}\n")


@app.command()
def show(
    run: Newest = None,
    root: Root = RUNS,
    events: Annotated[int, typer.Option(min=0, help="Show the last so many events.")] = 10,
    clients: Annotated[int, typer.Option(min=0, help="Show the first so many clients; --json has all.")] = 50,
    json_: Json = False,
) -> None:
    """Show one run: its configuration, its totals, its clients, and what happened last."""
    from dataclasses import asdict

    from thinwire.cli.run_folders import locate, size_bytes

    stored = locate(str(newest(root, "a run directory")) if run is None else run, root)
    last = stored.events(limit=-events) if events else []
    found = {"run_dir": str(stored.path), "size_bytes": size_bytes(stored.path), **asdict(stored.info)}
    found |= {"totals": stored.totals(), "clients": stored.clients(), "events": last}
    if json_:
        print(json.dumps(found))
        return
    from thinwire.cli.run_tables import print_run

    print_run(found, clients)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Two run directories or more, or names below --root.", autocompletion=run_directories),
    ],
    root: Root = RUNS,
    target: Annotated[
        list[str] | None,
        typer.Option(help="A goal, e.g. accuracy=0.95 or loss=0.2 (default: the best that all reached). Repeatable."),
    ] = None,
    json_: Json = False,
) -> None:
    """Compare runs: where they ended, what each paid to get to one goal, and what was configured differently."""
    from thinwire.cli.curves import targets
    from thinwire.cli.run_comparing import Comparison
    from thinwire.cli.run_folders import locate

    if len(runs) < 2:
        raise ConfigError("give two runs or more to compare")
    comparison = Comparison.of([locate(run, root).path for run in runs], targets(target or []))
    if json_:
        print(json.dumps(comparison.as_json()))
        return
    from rich.console import Console

    from thinwire.cli.run_tables import comparison_table

    Console().print(comparison_table(comparison))


@app.command()
def export(
    run: Run,
    root: Root = RUNS,
    what: Annotated[str, typer.Option(help="rounds, clients, client-rounds or events.")] = "rounds",
    format_: Annotated[
        str | None, typer.Option("--format", help="csv, json, jsonl or parquet (default: by --out's ending, or csv).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file (default: standard output).")] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="As --format json; with --out, print what was written as one JSON object.")
    ] = False,
) -> None:
    """Take a run's numbers out, as a table or as JSON."""
    from thinwire.cli.run_exporting import chosen_format, records, text, what_of, write_parquet
    from thinwire.cli.run_folders import locate

    style = chosen_format("json" if json_ and format_ is None and out is None else format_, out)
    rows = records(locate(run, root), what_of(what), style)
    if out is None:
        print(text(rows, style), end="")
        return
    try:
        if style == "parquet":
            write_parquet(rows, out)
        else:
            out.write_text(text(rows, style), encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from None
    written = {"file": str(out), "what": what, "format": style, "records": len(rows)}
    print(json.dumps(written) if json_ else f"{out}: {len(rows)} {what}")


@app.command()
def prune(
    root: Root = RUNS,
    keep: Annotated[int | None, typer.Option(help="Keep the newest so many.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only those silent for longer: 90m, 12h, 30d, 2w.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only these: finished, stopped, failed, killed. Repeatable.")
    ] = None,
    events: Annotated[
        int | None, typer.Option(min=0, help="Delete no run: of its events, keep the newest so many.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Delete runs that all of the given rules let go; never one that is running, and no file of another program."""
    from thinwire.cli.run_folders import find
    from thinwire.cli.run_pruning import Rule, age, forget, prunable, remove

    rule = Rule(keep, None if older_than is None else age(older_than), tuple(state or ()))
    if events is None and rule == Rule():
        raise ConfigError(
            "say which runs may go: --keep, --older-than or --state, or --events to thin out their events"
        )
    if json_ and not (yes or dry_run):
        raise ConfigError("--json cannot ask: add --yes, or --dry-run")
    chosen = prunable(find(root), rule)
    if not json_:
        _announce(chosen, events)
    if dry_run or not chosen:
        if json_:
            print(json.dumps({"dry_run": dry_run, "runs": [run.as_json() for run in chosen]}))
        return
    if not yes:
        typer.confirm("Delete them?" if events is None else "Delete their older events?", abort=True)
    if events is not None:
        gone = {run.name: forget(run, events) for run in chosen}
        print(json.dumps({"events_deleted": gone}) if json_ else f"{sum(gone.values())} events deleted")
        return
    _pruned([remove(run) for run in chosen], json_)


def _announce(chosen: "Sequence[Listed]", events: int | None) -> None:
    from thinwire.cli.words import amount

    if not chosen:
        print("no run is let go by these rules")
        return
    _print_list(chosen)
    size, count = amount(sum(run.size_bytes for run in chosen)), f"{len(chosen)} run{'s' * (len(chosen) != 1)}"
    print(f"{count}, {size}" if events is None else f"{count} to keep the newest {events} events")


def _print_list(found: "Sequence[Listed]") -> None:
    from thinwire.cli.fitting import print_fitting
    from thinwire.cli.run_tables import SPARE_OF_LIST, list_table

    print_fitting(lambda without: list_table(found, without), SPARE_OF_LIST)


def _pruned(removed: "Sequence[Removed]", as_json: bool) -> None:
    from thinwire.cli.words import amount

    if as_json:
        told = [
            {"run_dir": str(one.run.path), "freed_bytes": one.freed_bytes, "kept": one.kept, "trouble": one.trouble}
            for one in removed
        ]
        print(json.dumps({"dry_run": False, "runs": told}))
    else:
        print(f"{amount(sum(one.freed_bytes for one in removed))} freed")
        for one in removed:
            if one.kept:
                print(f"{one.run.path} stays with what Thinwire did not write: {', '.join(one.kept)}")
    troubles = [one.trouble for one in removed if one.trouble]
    if troubles:
        raise ConfigError(f"{len(troubles)} of {len(removed)} runs could not be deleted: {troubles[0]}")
