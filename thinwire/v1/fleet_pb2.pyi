from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectRequest(_message.Message):
    __slots__ = ("open", "frame")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    open: Open
    frame: Frame
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("opened", "frame", "refused", "finished", "heard")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    frame: Frame
    refused: Refused
    finished: Finished
    heard: Heard
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., heard: _Optional[_Union[Heard, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("protocol", "software", "identity", "token", "held", "knock")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    KNOCK_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    identity: str
    token: str
    held: _containers.RepeatedScalarFieldContainer[str]
    knock: bool
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., identity: _Optional[str] = ..., token: _Optional[str] = ..., held: _Optional[_Iterable[str]] = ..., knock: bool = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("node", "chunk_bytes", "message_bytes", "wanted")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    node: int
    chunk_bytes: int
    message_bytes: int
    wanted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., message_bytes: _Optional[int] = ..., wanted: _Optional[_Iterable[str]] = ...) -> None: ...

class Heard(_message.Message):
    __slots__ = ("software", "time")
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    software: str
    time: float
    def __init__(self, software: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "retry")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    retry: bool
    def __init__(self, reason: _Optional[str] = ..., retry: bool = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("message", "total_bytes", "offset", "chunk")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    message: str
    total_bytes: int
    offset: int
    chunk: bytes
    def __init__(self, message: _Optional[str] = ..., total_bytes: _Optional[int] = ..., offset: _Optional[int] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("message", "segment_bytes")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    segment_bytes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, message: _Optional[bytes] = ..., segment_bytes: _Optional[_Iterable[int]] = ...) -> None: ...
