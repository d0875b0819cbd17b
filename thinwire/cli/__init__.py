"""The command line: parse, one call, print."""

import os
import sys

import typer

from thinwire.errors import RoundError, ThinwireError

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
LOG_JSON = "--log-json"
COMPLETING = "_THINWIRE_COMPLETE"  # set by the shell's completion


def main() -> None:
    """Run the command line; errors that Thinwire raises on purpose are one line, without a traceback.

    Exit codes: 0 done, 1 the run failed, 2 the operator can fix it, 130 interrupted.
    """
    if COMPLETING not in os.environ:  # a shell that asks for words waits for them
        import thinwire.flower  # noqa: F401  keeps Flower quiet before anything imports it
    from thinwire.cli.commands import app
    from thinwire.cli.described import command_line

    try:
        code = command_line(app)(standalone_mode=False, prog_name="thinwire")
    except ThinwireError as error:
        _tell(str(error))
        sys.exit(FAILED if isinstance(error, RoundError) else MISTAKE)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("click", "typer"):
            _usage(error)
            sys.exit(MISTAKE)
        raise
    sys.exit(code if isinstance(code, int) else DONE)


def _usage(error: Exception) -> None:
    """A wrong flag or argument, as one line."""
    message = error.format_message() if hasattr(error, "format_message") else (str(error) or "aborted")
    if message:  # where help was printed there is no more to say
        _tell(message)


def _tell(message: str) -> None:
    """What is wrong, in the form that was asked for, also where that is found before --log-json has been heard."""
    if LOG_JSON in sys.argv:
        from thinwire.cli import logs

        if not logs.as_json():
            logs.set_up(True, "info")
    sys.stderr.write(f"error: {message}\n")
