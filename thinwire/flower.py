"""Every name of Flower that is not public, in one place; importing this module starts no telemetry and no update check.

Written against flwr 1.41; the rest of Thinwire imports ``flwr.app``, ``flwr.serverapp`` and ``flwr.clientapp`` only.
"""

import os
import time
import warnings

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what its core writes to standard error past every log
with warnings.catch_warnings():  # flwr's own imports use what its libraries deprecate
    warnings.simplefilter("ignore", DeprecationWarning)
    import flwr.app  # noqa: F401

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import cast

from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError

from thinwire.errors import WireError

__all__ = ["NodeInfo", "Run"]

App = Callable[[Message, Context], Message]
Scalar = bool | float | int | str

SERVER_NODE = SUPERLINK_NODE_ID
APP_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
MESSAGE_EXPIRED = ErrorCode.MESSAGE_UNAVAILABLE
NODE_UNAVAILABLE = ErrorCode.NODE_UNAVAILABLE
MOD_REFUSED = ErrorCode.MOD_FAILED_PRECONDITION


def enter_run(run_id: int) -> Run:
    """Make ``Message(content, dst_node_id, ...)`` work in this process as it does in a Flower server task of this run.

    The identity is global to the process: the run entered last is the one new messages belong to.
    """
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SERVER_NODE
    TaskIdentity.task_id = 0
    return Run.create_empty(run_id)


def node_id(run_id: int, identity: str) -> int:
    """The node id of a client in a run: 63 bits, the same in every process; never the server's own."""
    digest = blake2b(identity.encode(), digest_size=8, key=run_id.to_bytes(8, "little"), person=b"thinwire-node")
    return (int.from_bytes(digest.digest(), "little") >> 1) | 1 << 62


def node_info(node: int, name: str, online: bool) -> NodeInfo:
    """Flower's description of a node, with the client's identity as its name."""
    return NodeInfo(node_id=node, name=name, status=NodeStatus.ONLINE if online else NodeStatus.OFFLINE)


def request(
    content: RecordDict, kind: str, node: int, run_id: int, group: str = "", ttl: float | None = None
) -> Message:
    """A new message to a node, made outside a Flower task. ``ttl`` in seconds, Flower's 12 hours when None.

    Raises ValueError where Flower refuses the message type.
    """
    seconds = DEFAULT_TTL if ttl is None else ttl
    metadata = Metadata(run_id, "", SERVER_NODE, node, "", group, time.time(), seconds, kind)
    return make_message(metadata, content=content)


def addressed(message: Message, run_id: int, message_id: str) -> Message:
    """The message as it leaves the server: with its identifier and the run's; content is shared, not copied."""
    old = message.metadata
    metadata = Metadata(
        run_id,
        message_id,
        SERVER_NODE,
        old.dst_node_id,
        old.reply_to_message_id,
        old.group_id,
        old.created_at,
        old.ttl,
        old.message_type,
    )
    return make_message(metadata, *_parts(message))


def reply_metadata(asked: Metadata) -> Metadata:
    """The metadata of the reply to a request, from the request alone: nothing in it is the peer's word."""
    now = time.time()
    return Metadata(
        run_id=asked.run_id,
        message_id=f"{asked.message_id}.reply",
        src_node_id=asked.dst_node_id,
        dst_node_id=SERVER_NODE,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=now,
        ttl=max(0.0, asked.created_at + asked.ttl - now),
        message_type=asked.message_type,
    )


def make_message(metadata: Metadata, content: RecordDict | None = None, error: Error | None = None) -> Message:
    """A message with explicit metadata, which needs no Flower task."""
    return Message(metadata=metadata, content=content, error=error)  # type: ignore[call-overload, no-any-return]


def error_reply(asked: Metadata, code: int, reason: str) -> Message:
    """An error in place of a node's reply, as Flower reports it."""
    return make_message(reply_metadata(asked), error=Error(code, reason))


def answer(app: App, message: Message, context: Context) -> Message:
    """The app's reply; an exception in the app is an Error reply like Flower's. KeyboardInterrupt passes through."""
    asked = message.metadata
    try:
        reply: object = app(message, context)
    except Exception as error:  # the app is the user's code: whatever it raises is this node's answer
        return error_reply(asked, APP_RAISED, f"{type(error)}:<'{error}'>")
    if not isinstance(reply, Message):
        return error_reply(asked, APP_RAISED, f"the ClientApp returned {type(reply).__name__}, not a Message")
    return make_message(reply_metadata(asked), *_parts(reply))


def new_context(
    run_id: int, node: int, node_config: Mapping[str, Scalar], run_config: Mapping[str, Scalar] | None = None
) -> Context:
    """A node's Context with an empty state."""
    return Context(run_id, node, dict(node_config), RecordDict(), dict(run_config or {}))


def detached(content: RecordDict) -> RecordDict:
    """A copy whose records can be changed without changing the original; the arrays' bytes are shared."""
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            records[name] = ArrayRecord({key: _with_data(array, array.data) for key, array in record.items()})
        elif isinstance(record, MetricRecord):
            records[name] = MetricRecord(dict(record))
        else:
            records[name] = ConfigRecord(dict(record))
    return RecordDict(records)


def split(message: Message) -> tuple[bytes, list[bytes]]:
    """The message's protobuf without the data of its arrays, and that data in order, not copied."""
    if message.has_error():
        return message_to_proto(message).SerializeToString(), []
    data: list[bytes] = []
    bare = RecordDict()
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            data.extend(array.data for array in record.values())
            bare[name] = ArrayRecord({key: _with_data(array, b"") for key, array in record.items()})
        else:
            bare[name] = record
    return message_to_proto(make_message(message.metadata, content=bare)).SerializeToString(), data


def hollow(bare: bytes, arrays: int) -> tuple[Message, list[Array]]:
    """Undo ``split`` but for the data: the message, and its arrays in order, whose ``data`` is for the caller to set.

    Raises WireError when the bytes are no Flower message, carry data themselves, or hold another number of arrays.
    """
    try:
        message = message_from_proto(MessageProto.FromString(bare))
    except (DecodeError, RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WireError(f"not a Flower message: {error}") from None
    if message.has_error() == message.has_content():
        raise WireError("a message holds either content or an error")
    found = _arrays(message)
    if len(found) != arrays:
        raise WireError(f"a message of {len(found)} arrays came with the data of {arrays}")
    if any(array.data for array in found):
        raise WireError("a message's header holds array data")
    return message, found


def _arrays(message: Message) -> list[Array]:
    """The arrays of a message in the order in which ``split`` lists their data."""
    if message.has_error():
        return []
    records = cast("list[object]", list(message.content.values()))
    return [array for record in records if isinstance(record, ArrayRecord) for array in record.values()]


def _parts(message: Message) -> tuple[RecordDict | None, Error | None]:
    """Content and error of a message, one of them None."""
    return (None, message.error) if message.has_error() else (message.content, None)


def _with_data(array: Array, data: bytes) -> Array:
    return Array(dtype=array.dtype, shape=tuple(array.shape), stype=array.stype, data=data)
