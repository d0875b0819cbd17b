from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_MISSING_REPLICA: _ClassVar[Reason]
    REASON_LOST_PRIVATE: _ClassVar[Reason]
    REASON_DIVERGED_REPLICA: _ClassVar[Reason]
    REASON_DECLINED: _ClassVar[Reason]
    REASON_UNWELCOME: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_MISSING_REPLICA: Reason
REASON_LOST_PRIVATE: Reason
REASON_DIVERGED_REPLICA: Reason
REASON_DECLINED: Reason
REASON_UNWELCOME: Reason

class HelloRequest(_message.Message):
    __slots__ = ("protocol", "software", "run")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    run: str
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol", "software", "client", "task", "codecs")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    client: str
    task: str
    codecs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., client: _Optional[str] = ..., task: _Optional[str] = ..., codecs: _Optional[_Iterable[str]] = ...) -> None: ...

class WelcomeRequest(_message.Message):
    __slots__ = ("protocol", "run", "incarnation", "index", "clients", "configuration", "layout_digest")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run: str
    incarnation: int
    index: int
    clients: int
    configuration: str
    layout_digest: bytes
    def __init__(self, protocol: _Optional[int] = ..., run: _Optional[str] = ..., incarnation: _Optional[int] = ..., index: _Optional[int] = ..., clients: _Optional[int] = ..., configuration: _Optional[str] = ..., layout_digest: _Optional[bytes] = ...) -> None: ...

class WelcomeReply(_message.Message):
    __slots__ = ("refusal", "layout_digest", "examples", "replica_version", "has_replica", "frozen_digest", "history")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    REPLICA_VERSION_FIELD_NUMBER: _ClassVar[int]
    HAS_REPLICA_FIELD_NUMBER: _ClassVar[int]
    FROZEN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    layout_digest: bytes
    examples: int
    replica_version: int
    has_replica: bool
    frozen_digest: bytes
    history: bytes
    def __init__(self, refusal: _Optional[str] = ..., layout_digest: _Optional[bytes] = ..., examples: _Optional[int] = ..., replica_version: _Optional[int] = ..., has_replica: bool = ..., frozen_digest: _Optional[bytes] = ..., history: _Optional[bytes] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("version", "state", "frozen")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    version: int
    state: bytes
    frozen: bytes
    def __init__(self, version: _Optional[int] = ..., state: _Optional[bytes] = ..., frozen: _Optional[bytes] = ...) -> None: ...

class Downlink(_message.Message):
    __slots__ = ("version", "packet")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    version: int
    packet: bytes
    def __init__(self, version: _Optional[int] = ..., packet: _Optional[bytes] = ...) -> None: ...

class Base(_message.Message):
    __slots__ = ("snapshot", "downlinks", "base_history", "target_history")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DOWNLINKS_FIELD_NUMBER: _ClassVar[int]
    BASE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    TARGET_HISTORY_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    downlinks: _containers.RepeatedCompositeFieldContainer[Downlink]
    base_history: bytes
    target_history: bytes
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., downlinks: _Optional[_Iterable[_Union[Downlink, _Mapping]]] = ..., base_history: _Optional[bytes] = ..., target_history: _Optional[bytes] = ...) -> None: ...

class RoundRequest(_message.Message):
    __slots__ = ("run", "incarnation", "round", "attempt", "place", "cohort", "target_version", "chain", "fresh", "mirror", "replica_digest", "personal")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    TARGET_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    MIRROR_FIELD_NUMBER: _ClassVar[int]
    REPLICA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    run: str
    incarnation: int
    round: int
    attempt: int
    place: int
    cohort: int
    target_version: int
    chain: bytes
    fresh: bool
    mirror: bytes
    replica_digest: bytes
    personal: bytes
    def __init__(self, run: _Optional[str] = ..., incarnation: _Optional[int] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., place: _Optional[int] = ..., cohort: _Optional[int] = ..., target_version: _Optional[int] = ..., chain: _Optional[bytes] = ..., fresh: bool = ..., mirror: _Optional[bytes] = ..., replica_digest: _Optional[bytes] = ..., personal: _Optional[bytes] = ...) -> None: ...

class RoundReply(_message.Message):
    __slots__ = ("run", "incarnation", "round", "attempt", "client", "uplink_digest", "reason", "detail", "chain", "replica_version", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    UPLINK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    REPLICA_VERSION_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run: str
    incarnation: int
    round: int
    attempt: int
    client: int
    uplink_digest: bytes
    reason: Reason
    detail: str
    chain: bytes
    replica_version: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, run: _Optional[str] = ..., incarnation: _Optional[int] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., client: _Optional[int] = ..., uplink_digest: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ..., chain: _Optional[bytes] = ..., replica_version: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("run", "incarnation", "round", "target_version")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TARGET_VERSION_FIELD_NUMBER: _ClassVar[int]
    run: str
    incarnation: int
    round: int
    target_version: int
    def __init__(self, run: _Optional[str] = ..., incarnation: _Optional[int] = ..., round: _Optional[int] = ..., target_version: _Optional[int] = ...) -> None: ...

class EvaluateReply(_message.Message):
    __slots__ = ("run", "round", "client", "reason", "detail", "examples", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    client: int
    reason: Reason
    detail: str
    examples: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., client: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ..., examples: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...
