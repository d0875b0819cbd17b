"""What is asked of a run by name: checked at once, on any thread, and carried out on the run's, between two rounds."""

from collections.abc import Mapping
from concurrent.futures import Future

from server.control.commands import Refusal
from server.control.control import Control
from strategies.changes import changed, value_of
from strategies.collection import banned
from strategies.helm import Helm
from strategies.roster import ClientRecord
from thinwire.config import nearest
from thinwire.errors import ConfigError, RoundError

MOST_REASON = 200
"""Characters of the reason of a ban."""

MOST_KEYS = 32
"""Keys that one change may set."""

MOST_VALUE = 200
"""Characters of a key, and of a value."""


def checkpoint(control: Control, by: str) -> "Future[str]":
    """Write a checkpoint. Raises Refusal, as all of these do."""

    def carry_out(helm: Helm) -> str:
        try:
            version = helm.checkpoint()
        except RoundError as error:  # the journal goes on from the one before
            raise Refusal("INTERNAL", str(error)) from None
        control.note("checkpoint", {"by": by, "round": version})
        return f"a checkpoint of round {version} is written"

    return control.submit(carry_out)


def drain(control: Control, by: str, name: str, undo: bool) -> "Future[str]":
    """Ask a client no more, or again; its weight and its state stay."""
    record = _client(control.helm(), name)
    try:
        control.helm().check_drain(record, undo)
    except ConfigError as error:
        raise Refusal("FAILED_PRECONDITION", str(error)) from None

    def carry_out(helm: Helm) -> str:
        try:
            helm.drain(record, undo)
        except ConfigError as error:
            raise Refusal("FAILED_PRECONDITION", str(error)) from None
        control.note("undrained" if undo else "drained", {"by": by, "client": name, "round": helm.version})
        return f"client {name!r} is asked again" if undo else f"client {name!r} is asked no more; its weight stays"

    return control.submit(carry_out)


def ban(control: Control, by: str, name: str, reason: str) -> "Future[str]":
    """Put a client out of the run for good. It goes at once, its weight after the open round."""
    if len(reason) > MOST_REASON or not reason.isprintable():
        raise Refusal("INVALID_ARGUMENT", f"a reason of {len(reason)} characters; {MOST_REASON} printable ones at most")
    record = _client(control.helm(), name)
    try:
        control.helm().check_ban(record)
    except ConfigError as error:
        raise Refusal("FAILED_PRECONDITION", str(error)) from None

    def carry_out(helm: Helm) -> str:
        try:
            anew = helm.ban(record, reason)
        except ConfigError as error:
            raise Refusal("FAILED_PRECONDITION", str(error)) from None
        finally:
            control.turn_away(name, None)
        fields = {"by": by, "client": name, "round": helm.version, "reason": reason, "begin_anew": len(anew)}
        control.note("banned", fields)
        control.note("roster", helm.roster())  # with the weights that hold now
        others = f"; without mirrors, {len(anew)} others begin anew" if anew else ""
        return f"client {name!r} is out of the run, its weight is the others'{others}"

    outcome = control.submit(carry_out)
    control.turn_away(name, banned(name, reason))
    return outcome


def change(control: Control, by: str, keys: Mapping[str, str]) -> "Future[str]":
    """Go on with other values of these keys, from the next round on."""
    if len(keys) > MOST_KEYS or any(len(text) > MOST_VALUE for pair in keys.items() for text in pair):
        raise Refusal("INVALID_ARGUMENT", f"at most {MOST_KEYS} keys and values of {MOST_VALUE} characters")
    asked, present = dict(sorted(keys.items())), control.helm()
    present.check_change(changed(present.config, asked, present.version))  # raises ConfigError

    def carry_out(helm: Helm) -> str:
        before = helm.config
        after = changed(before, asked, helm.version)
        try:
            helm.change(after, control.keep)
        except RoundError as error:  # before anything was changed
            raise Refusal("INTERNAL", str(error)) from None
        pairs = {key: [value_of(before, key), value_of(after, key)] for key in asked}
        control.note("changed", {"by": by, "round": helm.version, "keys": pairs})
        return "changed: " + ", ".join(f"{key} from {old} to {new}" for key, (old, new) in pairs.items())

    return control.submit(carry_out)


def _client(helm: Helm, name: str) -> ClientRecord:
    record = helm.client(name)
    if record is None:
        known = nearest(name[:128], [client.name for client in helm.clients][:64])
        raise Refusal("NOT_FOUND", f"no client of this run is called {name[:128]!r}{known}")
    return record
