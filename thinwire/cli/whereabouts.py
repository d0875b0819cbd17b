"""Where a run is: in a run directory of this machine, or behind a control service's address."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinwire.errors import ConfigError

if TYPE_CHECKING:
    from server.run_store import StoredRun
    from thinwire.wire.operator import Operator

RUNS = Path("runs")
RUN_DIR_HELP = "Run directory; default: the newest below runs/, one whose server runs before any other."
TLS = "(PEM), where the control service wants TLS."


def run_directories(incomplete: str = "") -> list[str]:
    """The run directories below runs/ and below what is typed so far, for the shell's completion."""
    typed = Path(incomplete)
    below = typed if incomplete.endswith(os.sep) else typed.parent
    found = [*_runs_in(RUNS), *(_runs_in(below) if below != RUNS else [])]
    return sorted({str(path) for path in found if str(path).startswith(incomplete)})


RunDir = Annotated[Path | None, typer.Argument(help=RUN_DIR_HELP, autocompletion=run_directories, show_default=False)]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="RUN_DIR", help=RUN_DIR_HELP, autocompletion=run_directories, show_default=False),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        envvar="THINWIRE_OPERATOR_ADDRESS",
        help="Control service of a run elsewhere; without TLS, with THINWIRE_OPERATOR_TOKEN.",
    ),
]
Ca = Annotated[
    Path | None, typer.Option(envvar="THINWIRE_OPERATOR_CA", help=f"Certificate that signed the server's {TLS}")
]
Certificate = Annotated[
    Path | None, typer.Option(envvar="THINWIRE_OPERATOR_CERTIFICATE", help=f"The operator's certificate {TLS}")
]
Key = Annotated[Path | None, typer.Option(envvar="THINWIRE_OPERATOR_KEY", help=f"Its private key {TLS}")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


@dataclass(frozen=True)
class Whereabouts:
    """A run directory of this machine, or an address; and the operator's credentials."""

    folder: Path | None
    address: str | None
    ca: Path | None
    certificate: Path | None
    key: Path | None
    token: str = field(default="", repr=False)  # for an address without TLS; a run directory has its own

    @staticmethod
    def of(
        folder: Path | None, address: str | None, ca: Path | None, certificate: Path | None, key: Path | None
    ) -> "Whereabouts":
        """What was said, or the newest run below runs/. Raises ConfigError where that leaves no run."""
        if folder is not None and address is not None:  # an address of the environment gives way
            address = None
        if folder is None and address is None:
            folder = newest()
        return Whereabouts(folder, address, ca, certificate, key, os.environ.get("THINWIRE_OPERATOR_TOKEN", ""))

    @property
    def name(self) -> str:
        """For people."""
        return str(self.folder if self.address is None else self.address)

    def operator(self) -> "Operator":
        """The control service of its server. Raises ConfigError where no server says that it runs."""
        from thinwire.credentials import check_authority, check_pair
        from thinwire.wire.operator import Operator

        check_authority(self.ca, "CA certificate")
        check_pair(self.certificate, self.key, "operator's")
        if self.address is not None:
            return Operator(self.address, self.ca, self.certificate, self.key, self.token)
        assert self.folder is not None
        if not self.folder.is_dir():
            raise ConfigError(f"there is no run directory {self.folder}{_offer()}")
        self._check_alive(self.folder)
        return Operator.of_run(self.folder, self.ca, self.certificate, self.key)

    def stored(self) -> "StoredRun | None":
        """The record of a run whose server cannot be asked: it is gone, or does not listen to us (``unheard``).

        None where the server is to be asked.
        """
        from server.run_store import holds_record, open_run

        folder = self.folder
        if folder is None or not holds_record(folder) or (_serves(folder) and not self.unheard()):
            return None
        return open_run(folder)

    def unheard(self) -> str:
        """Why a server that runs would not listen to us, so that the record has to do; empty where it would."""
        from thinwire.wire.operator import CONTROL, ControlFile

        folder = self.folder
        if folder is None or not _serves(folder):
            return ""
        if not os.access(folder / CONTROL, os.R_OK):
            return f"the server of {folder} listens to its own user only"
        found = ControlFile.find(folder)
        if found is None or not found.tls or self.ca is not None:
            return ""
        return f"the server of {folder} wants an operator's certificate (--ca, --certificate and --key)"

    def record_told(self) -> "StoredRun | None":
        """As ``stored``; that it is only the record of a run that goes on, and why, is said on standard error."""
        found, why = self.stored(), self.unheard()
        if found is not None and why:
            sys.stderr.write(f"{why}: this is its record\n")
        return found

    def _check_alive(self, folder: Path) -> None:
        """Raises ConfigError where the server is gone, saying what helps."""
        from server.run_store import holds_record, open_run

        if _serves(folder):
            return
        if not holds_record(folder):
            raise ConfigError(f"{folder} holds no run{_offer()}")
        info = open_run(folder).info
        onward = f"; go on with thinwire server --resume {folder}" if info.state in ("stopped", "killed") else ""
        if info.state == "running":
            raise ConfigError(f"the run in {folder} has no control service: a simulation, or server.control is off")
        raise ConfigError(f"no server runs on {folder}: the run is {info.state}{onward}")


def at_a_run(run: Any = RunDir) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that is given ``where`` a run is: in the place of that parameter it has a run directory, as ``run``
    says, and the address and credentials of a control service.
    """
    kinds = {"run": run, "address": Address, "ca": Ca, "certificate": Certificate, "key": Key}

    def placed(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_place(**given: Any) -> None:
            where = Whereabouts.of(*(given.pop(name) for name in kinds))
            command(where=where, **given)

        kind = inspect.Parameter.KEYWORD_ONLY
        place = [inspect.Parameter(name, kind, default=None, annotation=of) for name, of in kinds.items()]
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            parameters += place if parameter.name == "where" else [parameter.replace(kind=kind)]
        with_place.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_place.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_place

    return placed


def newest(root: Path = RUNS, otherwise: str = "a run directory, or --address HOST:PORT") -> Path:
    """The newest run below a folder, one whose server runs before any other. Raises ConfigError where there is none."""
    found = _runs_in(root)
    if not found:
        raise ConfigError(f"there is no run below {root}{os.sep}; give {otherwise}")
    return max(found, key=lambda folder: (_serves(folder), _changed(folder)))


def _runs_in(folder: Path) -> list[Path]:
    from server.run_store import holds_record

    try:
        return [path for path in folder.iterdir() if path.is_dir() and (holds_record(path) or _serves(path))]
    except OSError:
        return []


def _serves(folder: Path) -> bool:
    """Whether the server that wrote the folder's control file still holds the folder."""
    from server import run_lock
    from thinwire.wire.operator import CONTROL

    return (folder / CONTROL).exists() and run_lock.held(folder)


def _changed(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.glob("*.sqlite*")), default=folder.stat().st_mtime)


def _offer() -> str:
    found = _runs_in(RUNS)
    return f"; the newest below {RUNS}{os.sep} is {max(found, key=_changed)}" if found else ""
