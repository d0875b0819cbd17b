"""A client's answers as lines of the log, with the run and the round that they belong to."""

import logging
import time
from collections.abc import Callable

from flwr.app import Message

from client.desk import MOST_REQUEST_BYTES
from strategies.grid_transport import KINDS, RECORD
from strategies.transport import EVALUATE, MESSAGE, ROUND, WELCOME
from thinwire.cli import logs
from thinwire.cli.words import amount
from thinwire.errors import WireError
from thinwire.v1.round_pb2 import EvaluateRequest, RoundRequest, WelcomeRequest
from thinwire.wire.exchange import read

WORDS = {WELCOME: "welcomed", ROUND: "answered", EVALUATE: "evaluated"}


def answered(respond: Callable[[Message], Message], message: Message) -> Message:
    """The reply, and a line about it: for machines always, for people with --log-level debug.

    An answer that fails is a line in any case; its error goes to the server, as without this.
    """
    kind, about = KINDS.get(message.metadata.message_type, ""), asked(message)
    if "run" in about:
        logs.bind(run=str(about.pop("run")))
    started, received = time.monotonic(), size(message)
    try:
        reply = respond(message)
    except Exception as error:
        logs.say(f"cannot answer: {error}", "failed", logging.ERROR, **about)
        raise
    seconds, sent = time.monotonic() - started, size(reply)
    if kind in WORDS:
        place = f" round {about['round']}" if "round" in about else ""
        text = f"{WORDS[kind]}{place} in {seconds:.2f} s, {amount(received)} in, {amount(sent)} out"
        numbers = {"seconds": round(seconds, 6), "bytes_in": received, "bytes_out": sent}
        level = logging.INFO if logs.as_json() else logging.DEBUG
        logs.say(text, WORDS[kind], level, **about, **numbers)
    return reply


def asked(message: Message) -> dict[str, object]:
    """The run and the round of a request; nothing where it does not say."""
    record = message.content.array_records.get(RECORD)
    data = record[MESSAGE].data if record is not None and MESSAGE in record else b""
    kind = KINDS.get(message.metadata.message_type, "")
    try:
        if kind == WELCOME:
            return {"run": read(WelcomeRequest, data, 1 << 21).run}
        if kind == ROUND:
            request = read(RoundRequest, data, MOST_REQUEST_BYTES)
            return {"run": request.run, "round": request.round}
        if kind == EVALUATE:
            evaluation = read(EvaluateRequest, data)
            return {"run": evaluation.run, "round": evaluation.round}
    except WireError:
        return {}  # whoever answers says so
    return {}


def size(message: Message) -> int:
    """Bytes of the arrays of a message."""
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())
