"""What a command says while it runs, on standard error: lines for people, or with --log-json one JSON object a line.

Every line says which run, round and client it is about, where it is about one. Other people's libraries (Flower, Ray,
gRPC) speak up from warnings on only.
"""

import functools
import inspect
import io
import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TextIO

import typer

from server.run_store_rows import as_json as text_of
from thinwire.errors import ConfigError

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
OURS = ("thinwire", "compressors", "strategies", "client", "server")
ABOUT = ("run", "round", "client", "event")
MOST_FIELDS_BYTES = 64_000  # of one line; a row of a run of thousands of clients says how much it left out

LogJson = Annotated[bool, typer.Option("--log-json", help="Log one JSON object a line on standard error.")]
LogLevel = Annotated[str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")]

SAID = ("thinwire.said", "client.said")
"""The logs that are meant for the operator; all others are for who looks for a fault."""

say_log = logging.getLogger(SAID[0])

_bound: dict[str, str] = {}
_stray: "Stray | None" = None


def logged(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with --log-json and --log-level."""

    @functools.wraps(command)
    def with_logs(*, log_json: bool = False, log_level: str = "info", **options: Any) -> Any:
        set_up(log_json, log_level)
        return command(**options)

    signature = inspect.signature(command)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter("log_json", kind, default=False, annotation=LogJson),
        inspect.Parameter("log_level", kind, default="info", annotation=LogLevel),
    ]
    with_logs.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
    with_logs.__annotations__ = {**command.__annotations__, "log_json": LogJson, "log_level": LogLevel}
    return with_logs


def set_up(as_json: bool, level: str) -> None:
    """Send all logs of this process to standard error in one form. Raises ConfigError for an unknown level."""
    global _stray
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level!r}; allowed: {', '.join(LEVELS)}")
    if _stray is not None:
        _stray.restore()
        _stray = None
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, StandardError)]:
        root.removeHandler(handler)
    root.addHandler(StandardError(JsonLine() if as_json else PlainLine(level == "debug")))
    least = LEVELS[level]
    for name in OURS:  # INFO of these is what an operator is told in other words, or need not know
        logging.getLogger(name).setLevel(least if level in ("debug", "error") else logging.WARNING)
    for name in SAID:
        logging.getLogger(name).setLevel(least)
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    flower.propagate = True
    for name in ("flwr", "ray", "grpc", "asyncio", "matplotlib"):
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    _bound.clear()
    if as_json:
        _stray = Stray()


def as_json() -> bool:
    """Whether lines are for machines, so that progress is no picture."""
    return _stray is not None


def bind(**about: str) -> None:
    """From now on every line is about this run, or this client."""
    _bound.update(about)


def say(message: str, event: str = "", level: int = logging.INFO, **fields: Any) -> None:
    """One line for the operator; ``fields`` may name its run, round and client."""
    say_log.log(level, "%s", message, extra={"fields": {"event": event, **fields}})


class StandardError(logging.StreamHandler[TextIO]):
    """The process's own standard error as it is at the time, even where somebody replaces ``sys.stderr``."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a traceback is more than one for people."""
        self.stream = sys.stderr if _stray is None else _stray.stream
        super().emit(record)


class PlainLine(logging.Formatter):
    """For people: the message, and from warnings on how bad it is; with the time where all is told."""

    def __init__(self, all_told: bool) -> None:
        super().__init__("%(message)s")
        self._all_told = all_told

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it if there is one."""
        text = super().format(record)
        if record.levelno >= logging.WARNING and record.name not in SAID:
            text = f"{record.levelname.lower()}: {text}"
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {text}" if self._all_told else text


class JsonLine(logging.Formatter):
    """For machines: time, level, run, round, client, event, message, and what else is known as ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        fields = {**_bound, **getattr(record, "fields", {})}
        about = {name: fields.pop(name, None) or None for name in ABOUT}
        if isinstance(about["round"], bool) or not isinstance(about["round"], int):
            about["round"] = None
        line: dict[str, Any] = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            "level": record.levelname.lower(),
            **about,
            "message": record.getMessage(),
        }
        line["event"] = line["event"] or "said"
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        if fields:
            line["fields"] = _bounded(fields)
        return text_of(line)


def _bounded(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields, without those that would make a line too long."""
    sizes = {name: len(text_of(value)) for name, value in fields.items()}
    if sum(sizes.values()) <= MOST_FIELDS_BYTES:
        return fields
    small = {name: value for name, value in fields.items() if sizes[name] <= MOST_FIELDS_BYTES // 64}
    return {**small, "left_out": sorted(set(fields) - set(small))}


class Stray(io.TextIOBase):
    """In the place of ``sys.stderr``: whatever is written there as plain lines becomes lines of the log."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self._rest = ""
        sys.stderr = self

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, text: str) -> int:
        """Log every line that is whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log(line)
        return len(text)

    def flush(self) -> None:
        """A line is logged when it is whole."""

    def restore(self) -> None:
        """Log what is left, and let ``sys.stderr`` be as it was."""
        self._log(self._rest)
        self._rest = ""
        if sys.stderr is self:
            sys.stderr = self.stream

    def _log(self, line: str) -> None:
        if not line.strip():
            return
        for level in ("error", "warning"):
            if line.startswith(f"{level}: "):
                say(line.removeprefix(f"{level}: "), level, LEVELS[level])
                return
        say(line)
