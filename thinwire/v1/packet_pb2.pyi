from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payload(_message.Message):
    __slots__ = ("codec", "dtype", "parameters", "streams")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    codec: str
    dtype: str
    parameters: bytes
    streams: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, codec: _Optional[str] = ..., dtype: _Optional[str] = ..., parameters: _Optional[bytes] = ..., streams: _Optional[_Iterable[bytes]] = ...) -> None: ...

class NamedPayload(_message.Message):
    __slots__ = ("name", "payload")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload: Payload
    def __init__(self, name: _Optional[str] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...

class Packet(_message.Message):
    __slots__ = ("payloads", "checksum")
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    payloads: _containers.RepeatedCompositeFieldContainer[NamedPayload]
    checksum: int
    def __init__(self, payloads: _Optional[_Iterable[_Union[NamedPayload, _Mapping]]] = ..., checksum: _Optional[int] = ...) -> None: ...
