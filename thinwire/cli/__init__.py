"""The command line: parse, one call, print."""

import sys

import typer

from thinwire.errors import RoundError, ThinwireError

DONE, FAILED, MISTAKE = 0, 1, 2


def main() -> None:
    """Run the command line; errors that Thinwire raises on purpose are one line, without a traceback.

    Exit codes: 0 done, 1 the run failed, 2 the operator can fix it.
    """
    import thinwire.flower  # noqa: F401  keeps Flower quiet before anything imports it
    from thinwire.cli.commands import app

    try:
        code = app(standalone_mode=False)
    except ThinwireError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(FAILED if isinstance(error, RoundError) else MISTAKE)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("click", "typer"):
            _usage(error)
            sys.exit(MISTAKE)
        raise
    sys.exit(code if isinstance(code, int) else DONE)


def _usage(error: Exception) -> None:
    """A wrong flag or argument, as one line."""
    message = error.format_message() if hasattr(error, "format_message") else (str(error) or "aborted")
    sys.stderr.write(f"error: {message}\n")
