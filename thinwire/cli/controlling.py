"""The operator's control service beside a served run."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from server.control.callers import ControlOptions
from server.control.control import Control, RunFacts
from server.control.listener import ControlListener
from server.grids.options import FleetOptions
from server.run_directory import RunDirectory
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
def controlled(run: str, config: RunConfig, folder: RunDirectory, options: ControlOptions | None) -> Iterator[Control]:
    """A Control that sees all that the folder records, listening while the run goes on. Raises ConfigError."""
    control = Control(RunFacts(run, folder.path), config, folder.record, folder.rounds())
    folder.observers.add(control)
    listener = None if options is None else ControlListener(control, options)
    if listener is not None:
        sys.stderr.write(f"the operator is heard at {listener.address}\n")
    try:
        yield control
        if control.stopping_by is None:
            control.finish(RUN_STATE_FINISHED)
    except Stopped:
        raise
    except BaseException:
        control.finish(RUN_STATE_FAILED)
        raise
    finally:
        if listener is not None:
            listener.close()


__all__ = ["control_options", "controlled"]
