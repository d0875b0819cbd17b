"""The operator's control service beside a served run."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from server.control.callers import ControlOptions
from server.control.control import Control, RunFacts
from server.control.events import MOST_EVENTS
from server.control.listener import ControlListener
from server.grids.options import FleetOptions
from server.observers import Recorded
from server.run_directory import RunDirectory
from server.run_store import holds_record, open_run
from strategies.steering import Stopped
from thinwire.run_config import RunConfig
from thinwire.v1.operator_pb2 import RUN_STATE_FAILED, RUN_STATE_FINISHED

OFF = ("", "off")


def control_options(address: str, fleet: FleetOptions) -> ControlOptions | None:
    """Where to listen for the operator, with the server's own certificate; None: nowhere. Raises ConfigError."""
    if address in OFF:
        return None
    return ControlOptions(address, fleet.certificate, fleet.key, fleet.client_ca, fleet.revoked)


@contextmanager
def controlled(
    run: str,
    config: RunConfig,
    folder: RunDirectory,
    options: ControlOptions | None,
    keep: Callable[[RunConfig], None],
) -> Iterator[Control]:
    """A Control that sees all that the folder records, listening while the run goes on. Raises ConfigError.

    ``keep`` writes a changed configuration into the folder.
    """

    def record(kind: str, fields: Mapping[str, Any]) -> None:
        folder.record(kind, fields)

    control = Control(RunFacts(run, folder.path), config, record, keep, folder.rounds(), _past(folder))
    folder.observers.add(control)
    listener = None if options is None else ControlListener(control, options)
    if listener is not None:
        sys.stderr.write(f"the operator is heard at {listener.address}\n")
    try:
        yield control
        if control.stopped:
            control.leave()
        else:
            control.finish(RUN_STATE_FINISHED)
    except (Stopped, KeyboardInterrupt):
        control.leave()
        raise
    except BaseException as error:
        control.finish(RUN_STATE_FAILED, str(error) or type(error).__name__)
        raise
    finally:
        if listener is not None:
            listener.close()


def _past(folder: RunDirectory) -> Iterator[tuple[str, Recorded]]:
    """The last records of earlier processes."""
    if not holds_record(folder.path):
        return
    stored = open_run(folder.path)
    for event in stored.events(limit=-MOST_EVENTS, rounds=True):
        fields = {name: value for name, value in event.items() if name not in ("sequence", "time", "event")}
        yield str(event["event"]), Recorded(fields, int(event["sequence"]), float(event["time"]))


__all__ = ["control_options", "controlled"]
