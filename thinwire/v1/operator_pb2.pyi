from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_GATHERING: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_STOPPING: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]
    RUN_STATE_PAUSING: _ClassVar[RunState]

class ClientState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLIENT_STATE_UNSPECIFIED: _ClassVar[ClientState]
    CLIENT_STATE_CONNECTED: _ClassVar[ClientState]
    CLIENT_STATE_ABSENT: _ClassVar[ClientState]
    CLIENT_STATE_DRAINED: _ClassVar[ClientState]
    CLIENT_STATE_BANNED: _ClassVar[ClientState]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_GATHERING: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_STOPPING: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_FAILED: RunState
RUN_STATE_PAUSING: RunState
CLIENT_STATE_UNSPECIFIED: ClientState
CLIENT_STATE_CONNECTED: ClientState
CLIENT_STATE_ABSENT: ClientState
CLIENT_STATE_DRAINED: ClientState
CLIENT_STATE_BANNED: ClientState

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("run", "software", "state", "round", "rounds", "attempt", "asked", "replied", "round_seconds", "seconds", "clients", "connected", "uplink_bytes", "downlink_bytes", "dense_bytes", "metrics", "configuration", "run_directory", "last_event", "dense_uplink_bytes")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    REPLIED_FIELD_NUMBER: _ClassVar[int]
    ROUND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    UPLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOWNLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DENSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    RUN_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_FIELD_NUMBER: _ClassVar[int]
    DENSE_UPLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    run: str
    software: str
    state: RunState
    round: int
    rounds: int
    attempt: int
    asked: _containers.RepeatedScalarFieldContainer[str]
    replied: _containers.RepeatedScalarFieldContainer[str]
    round_seconds: float
    seconds: float
    clients: int
    connected: int
    uplink_bytes: int
    downlink_bytes: int
    dense_bytes: int
    metrics: _containers.ScalarMap[str, float]
    configuration: str
    run_directory: str
    last_event: int
    dense_uplink_bytes: int
    def __init__(self, run: _Optional[str] = ..., software: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., attempt: _Optional[int] = ..., asked: _Optional[_Iterable[str]] = ..., replied: _Optional[_Iterable[str]] = ..., round_seconds: _Optional[float] = ..., seconds: _Optional[float] = ..., clients: _Optional[int] = ..., connected: _Optional[int] = ..., uplink_bytes: _Optional[int] = ..., downlink_bytes: _Optional[int] = ..., dense_bytes: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., configuration: _Optional[str] = ..., run_directory: _Optional[str] = ..., last_event: _Optional[int] = ..., dense_uplink_bytes: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "time", "kind", "client", "round", "fields")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: float
    kind: str
    client: str
    round: int
    fields: str
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[float] = ..., kind: _Optional[str] = ..., client: _Optional[str] = ..., round: _Optional[int] = ..., fields: _Optional[str] = ...) -> None: ...

class ListClientsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ("clients",)
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[Client]
    def __init__(self, clients: _Optional[_Iterable[_Union[Client, _Mapping]]] = ...) -> None: ...

class Client(_message.Message):
    __slots__ = ("name", "index", "weight", "examples", "state", "last_seen", "version", "asked", "replied", "last_seconds", "mean_seconds", "uplink_bytes", "downlink_bytes", "failures", "last_failure", "address")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    REPLIED_FIELD_NUMBER: _ClassVar[int]
    LAST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEAN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UPLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOWNLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    index: int
    weight: float
    examples: int
    state: ClientState
    last_seen: float
    version: int
    asked: int
    replied: int
    last_seconds: float
    mean_seconds: float
    uplink_bytes: int
    downlink_bytes: int
    failures: int
    last_failure: str
    address: str
    def __init__(self, name: _Optional[str] = ..., index: _Optional[int] = ..., weight: _Optional[float] = ..., examples: _Optional[int] = ..., state: _Optional[_Union[ClientState, str]] = ..., last_seen: _Optional[float] = ..., version: _Optional[int] = ..., asked: _Optional[int] = ..., replied: _Optional[int] = ..., last_seconds: _Optional[float] = ..., mean_seconds: _Optional[float] = ..., uplink_bytes: _Optional[int] = ..., downlink_bytes: _Optional[int] = ..., failures: _Optional[int] = ..., last_failure: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("client", "undo")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    client: str
    undo: bool
    def __init__(self, client: _Optional[str] = ..., undo: bool = ...) -> None: ...

class BanRequest(_message.Message):
    __slots__ = ("client", "reason")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    client: str
    reason: str
    def __init__(self, client: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("keys",)
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.ScalarMap[str, str]
    def __init__(self, keys: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("message", "status")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    message: str
    status: Status
    def __init__(self, message: _Optional[str] = ..., status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...
