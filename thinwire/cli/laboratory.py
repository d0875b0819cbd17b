"""``thinwire lab``: the papers' experiments."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

PIPE_WIDTH = 140  # columns of a table that goes into a file
Json = Annotated[bool, typer.Option("--json", help="Print one JSON list last, and nothing else on standard output.")]


class Experiments(TyperGroup):
    """``thinwire lab NAME`` is ``thinwire lab run NAME``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Any first word that is no command is an experiment's name."""
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["run", *args])


app = typer.Typer(
    cls=Experiments,
    no_args_is_help=True,
    help="Run the papers' experiments: every method against its yardstick, with real packed bytes both ways.",
    epilog="`thinwire lab NAME` runs an experiment; `thinwire lab run --help` lists its options.",
)


@app.command("list")
def list_(json_: Json = False) -> None:
    """List the experiments."""
    from thinwire.lab.registry import registry

    rows = [{"name": name, "summary": experiment.summary} for name, experiment in registry().items()]
    if json_:
        print(json.dumps(rows))
        return
    table = Table(title="Experiments; run one with thinwire lab NAME", title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="An experiment; see thinwire lab list.")],
    quick: Annotated[bool, typer.Option("--quick", help="Small problems: seconds instead of minutes.")] = False,
    seeds: Annotated[int, typer.Option(help="How many: 0, 1, ...")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="A LIBSVM file (also .xz, .gz, .bz2) instead of drawn data.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only entries whose label contains this. Repeatable.")] = None,
    rounds: Annotated[int, typer.Option(help="Stop every run after this many rounds; 0: as the experiment says.")] = 0,
    processes: Annotated[int, typer.Option(help="0: one per core, and a single one with --quick.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and figures (runs/lab/NAME-DATE).")] = None,
    json_: Json = False,
) -> None:
    """Run an experiment: tables, figures and CSV files."""
    from thinwire.lab.experiment import Settings
    from thinwire.lab.registry import find
    from thinwire.lab.report import perform
    from thinwire.lab.runner import Plan
    from thinwire.lab.tables import table_of

    plan = Plan(seeds, tuple(only or ()), rounds, processes)
    report = perform(find(name), Settings(quick, data), plan, out)
    if json_:
        print(json.dumps([result.as_json() for result in report.results]))
        return
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for figure in report.figures:
        console.print(table_of(figure, report.results))
    console.print(f"tables and figures: {report.folder}", highlight=False, soft_wrap=True)
    if not report.pictures:
        console.print("no figures were drawn, for matplotlib is not installed: pip install 'thinwire[simulation]'")


@app.command("constants")
def constants(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with a run's configuration.")] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients in the roster.")] = None,
    task: Annotated[str | None, typer.Option(help="digits, idx, or your own as package.module:Class.")] = None,
    method: Annotated[str | None, typer.Option(help="The method whose step is wanted.")] = None,
    uplink: Annotated[str | None, typer.Option(help="Its compressor.")] = None,
    downlink: Annotated[str | None, typer.Option(help="Its compressor from server to client.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any configuration key. Repeatable.")] = None,
    json_: Json = False,
) -> None:
    """Estimate a task's constants (L, L_i, mu) from its gradients, and the step that theory makes of them."""
    from thinwire.cli.options import run_options
    from thinwire.lab.constants import estimate_constants
    from thinwire.run_config import RunConfig

    names = {"method": method, "uplink": uplink, "downlink": downlink, "task": task}
    options = run_options(config, {"clients": clients, "seed": seed}, names, set_ or [])
    plain = {key: value for key, value in options.items() if key != "server"}
    estimated = estimate_constants(RunConfig.of(plain))
    if json_:
        print(json.dumps(estimated.as_json()))
        return
    Console().print(estimated.table())
