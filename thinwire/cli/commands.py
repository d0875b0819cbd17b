"""The commands of ``thinwire``."""

from pathlib import Path
from typing import Annotated, Any

import typer

import thinwire
from thinwire.cli import certs, completion, drawing, laboratory, operating, runs
from thinwire.cli.logs import logged
from thinwire.cli.options import EngineName, client_options, run_options
from thinwire.errors import ConfigError

app = typer.Typer(
    name="thinwire",
    help="Federated learning for machines joined by thin wires.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(certs.app, name="certs")
app.add_typer(laboratory.app, name="lab")
app.add_typer(runs.app, name="runs")
operating.add_to(app)
app.command()(drawing.plot)
app.command()(drawing.report)

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with the run's configuration.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any configuration key, e.g. --set uplink.fraction=0.02. Repeatable.")
]
Clients = Annotated[int | None, typer.Option(help="Number of clients in the roster.")]
Rounds = Annotated[int | None, typer.Option(help="Number of rounds.")]
Participation = Annotated[float | None, typer.Option(help="Share of the clients asked per round, in (0, 1].")]
Seed = Annotated[int | None, typer.Option(help="Seed of the run.")]
MethodName = Annotated[
    str | None, typer.Option("--method", help="Method, e.g. ef21, ef14, fedavg.", autocompletion=completion.methods)
]
Uplink = Annotated[
    str | None,
    typer.Option(help="Compressor from client to server, e.g. top-k.", autocompletion=completion.compressors),
]
Downlink = Annotated[
    str | None,
    typer.Option(
        help="Compressor from server to client, e.g. natural; identity is dense.",
        autocompletion=completion.compressors,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="digits, adversarial-digits, idx, text, or your own as package.module:Class.",
        autocompletion=completion.tasks,
    ),
]
Init = Annotated[Path | None, typer.Option(help="Start from these weights (safetensors).")]
Pem = Path | None
Out = Annotated[Path | None, typer.Option(help="Run directory (default: runs/DATE-METHOD).")]
Metrics = Annotated[
    str | None, typer.Option(help="Serve metrics to Prometheus on host:port, or on a port of this machine.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard event files; needs its extra.")]
Hooks = Annotated[
    list[str] | None, typer.Option("--hook", help="Observer of one's own, package.module:Class. Repeatable.")
]
Cohort = Annotated[int | None, typer.Option(help="Number of clients asked per round, instead of --participation.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object last, and nothing else on standard output.")]


@app.command()
@logged
def simulate(
    config: ConfigFile = None,
    clients: Clients = None,
    rounds: Rounds = None,
    participation: Participation = None,
    cohort: Cohort = None,
    seed: Seed = None,
    method: MethodName = None,
    uplink: Uplink = None,
    downlink: Downlink = None,
    task: TaskName = None,
    init: Init = None,
    set_: Set = None,
    out: Out = None,
    baseline: Annotated[bool, typer.Option(help="Run dense FedAvg beside it, as the yardstick.")] = True,
    tensorboard: TensorBoard = False,
    hook: Hooks = None,
    workers: Annotated[int, typer.Option(help="Processes that the clients are spread over; 1: this one.")] = 1,
    engine: Annotated[
        EngineName, typer.Option(help="What plays the clients; flower is Flower's own engine, on Ray.")
    ] = EngineName.IN_PROCESS,
    client_cpus: Annotated[float, typer.Option(help="With --engine flower: cores of each client at work.")] = 1.0,
    client_gpus: Annotated[float, typer.Option(help="With --engine flower: share of a GPU of each, e.g. 0.25.")] = 0.0,
    json_: Json = False,
) -> None:
    """Train a federation of virtual clients on this machine; every byte that would travel is packed and counted."""
    from thinwire.cli.cross_device import with_cohort
    from thinwire.cli.engines import engine_of
    from thinwire.cli.simulation import run_simulation

    flags: dict[str, Any] = {
        "clients": clients,
        "rounds": rounds,
        "participation": participation,
        "seed": seed,
        "init": _text(init),
    }
    flags |= {"server.tensorboard": tensorboard or None, "server.hooks": hook or None}
    names = {"method": method, "uplink": uplink, "downlink": downlink, "task": task}
    options = with_cohort(run_options(config, flags, names, set_ or []), cohort, participation)
    played_by = engine_of(engine, workers, client_cpus, client_gpus)
    run_simulation(options, out, baseline=baseline, as_json=json_, engine=played_by)


@app.command()
@logged
def server(
    config: ConfigFile = None,
    clients: Clients = None,
    rounds: Rounds = None,
    participation: Participation = None,
    seed: Seed = None,
    method: MethodName = None,
    uplink: Uplink = None,
    downlink: Downlink = None,
    task: TaskName = None,
    init: Init = None,
    set_: Set = None,
    out: Out = None,
    address: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1:8500).")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this run directory.")] = None,
    keep_on: Annotated[
        bool, typer.Option("--keep-on", help="Go on with the run in --out if there is one, or else begin it.")
    ] = False,
    certificate: Annotated[Pem, typer.Option(help="The server's certificate chain (PEM); with --key: TLS.")] = None,
    key: Annotated[Pem, typer.Option(help="Private key of the certificate (PEM).")] = None,
    client_ca: Annotated[Pem, typer.Option(help="Clients must show a certificate that this one signed (PEM).")] = None,
    revoked: Annotated[Pem, typer.Option(help="Certificates to refuse: revoked.txt of thinwire certs.")] = None,
    token: Annotated[str | None, typer.Option(help="Shared secret that clients must know.")] = None,
    insecure: Annotated[bool, typer.Option(help="Without TLS; for loopback, unless said twice.")] = False,
    insecure_address: Annotated[
        str | None, typer.Option(help="The second time: --address again, to listen on it without TLS.")
    ] = None,
    metrics: Metrics = None,
    tensorboard: TensorBoard = False,
    hook: Hooks = None,
    json_: Json = False,
) -> None:
    """Serve a run to clients over gRPC."""
    from server.run_directory import CHECKPOINTS, check_resumable
    from thinwire.cli.serving import serve

    flags: dict[str, Any] = {
        "clients": clients,
        "rounds": rounds,
        "participation": participation,
        "seed": seed,
        "init": _text(init),
    }
    names = {"method": method, "uplink": uplink, "downlink": downlink, "task": task}
    host = {"address": address, "certificate": certificate, "key": key, "client_ca": client_ca, "token": token}
    host |= {"revoked": revoked, "insecure_address": insecure_address}
    flags |= {f"server.{name}": _text(value) for name, value in host.items()}
    flags["server.insecure"] = insecure or None
    flags |= {"server.metrics": metrics, "server.tensorboard": tensorboard or None, "server.hooks": hook or None}
    if keep_on and out is None:
        raise ConfigError("--keep-on needs --out, the run directory to go on in or to begin")
    if keep_on and out is not None and (out / CHECKPOINTS).exists():
        resume, out = out, None
    if resume is not None and out is not None:
        raise ConfigError("give either --out (a new run) or --resume (go on in a run directory), not both")
    if resume is not None:
        check_resumable(resume)
    serve(run_options(config, flags, names, set_ or [], resume), out, resume=resume, as_json=json_)


@app.command()
@logged
def client(
    server: Annotated[str | None, typer.Option(help="Server as host:port.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with this client's settings.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of this client, stable across restarts (default: host name).")
    ] = None,
    task: TaskName = None,
    state: Annotated[Path | None, typer.Option(help="Folder for this client's private state.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    token: Annotated[str | None, typer.Option(help="Shared secret, when the server asks for one.")] = None,
    ca: Annotated[Pem, typer.Option(help="Certificate that signed the server's (PEM): TLS.")] = None,
    certificate: Annotated[Pem, typer.Option(help="This client's certificate chain (PEM), for mutual TLS.")] = None,
    key: Annotated[Pem, typer.Option(help="Its private key (PEM).")] = None,
    identities: Annotated[
        Pem, typer.Option(help="Folder of NAME.pem and NAME.key: take a name that no other process here uses.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Without TLS; for loopback, unless said twice.")] = False,
    insecure_address: Annotated[
        str | None, typer.Option(help="The second time: --server again, to dial it without TLS.")
    ] = None,
    metrics: Metrics = None,
    set_: Set = None,
) -> None:
    """Take part in a run: train on local data whenever the server asks, until the run is over."""
    from thinwire.cli.taking_part import take_part

    flags: dict[str, Any] = {"server": server, "name": name, "device": device, "token": token}
    files = {"state": state, "ca": ca, "certificate": certificate, "key": key, "identities": identities}
    flags |= {name: _text(path) for name, path in files.items()}
    flags |= {"insecure": insecure or None, "insecure_address": insecure_address, "metrics": metrics}
    take_part(client_options(config, flags, task, set_ or []))


@app.command()
def compressors(
    name: Annotated[
        str | None,
        typer.Argument(help="Explain this one.", show_default=False, autocompletion=completion.compressors),
    ] = None,
    json_: Json = False,
) -> None:
    """List the compressors, or explain one."""
    from thinwire.cli.listing import explain_compressor, list_compressors

    if name is None:
        list_compressors(as_json=json_)
    else:
        explain_compressor(name, as_json=json_)


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Explain this one: rule, options, what fits it.", autocompletion=completion.methods),
    ] = None,
    json_: Json = False,
) -> None:
    """List the methods, or explain one."""
    from thinwire.cli.listing import explain_method, list_methods

    if name is None:
        list_methods(as_json=json_)
    else:
        explain_method(name, as_json=json_)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(thinwire.__version__)


def _text(value: Path | str | None) -> str | None:
    """A flag's value as configuration holds it; None when it was not given."""
    return None if value is None else str(value)
