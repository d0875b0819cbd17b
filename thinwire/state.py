"""States as values: frozen dataclasses of tensors, numbers, text, bytes, None, tuples and nested states.

One generic piece of code saves, loads, compares and digests them all.
"""

import base64
import dataclasses
import hashlib
import importlib
import json
import sys
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from thinwire.errors import WireError

ROOMS = ("thinwire", "compressors", "strategies", "client", "server")


def dump(state: Any) -> bytes:
    """The state as safetensors, its structure in the metadata. Tensors are moved to the CPU."""
    return b"".join(pieces(state))


def pieces(state: Any) -> list[Any]:
    """The bytes of ``dump`` as buffers in order: tensors on the CPU are not copied, so that a file costs no memory."""
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {"__metadata__": {"structure": json.dumps(describe(state, tensors))}}
    buffers, end = [], 0
    for name, tensor in tensors.items():
        start, own = end, tensor.detach().cpu().contiguous()
        buffers.append(own.reshape(-1).view(torch.uint8).numpy().data)
        end += own.numel() * own.element_size()
        header[name] = {"dtype": NAMES[own.dtype], "shape": list(own.shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of 8
    return [len(head).to_bytes(8, "little") + head, *buffers]


def load(data: bytes, device: torch.device | str = "cpu", like: Any = None) -> Any:
    """The state that ``dump`` wrote. Raises WireError when the bytes are damaged or name a class that is no state.

    With ``like``, a state from a peer is taken only if it has that state's classes, shapes and dtypes, which is checked
    before any tensor is made.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        structure = json.loads(header["__metadata__"]["structure"])
        if like is not None:
            _check_like(structure, header, like)
        tensors = load_tensors(data)
        return _rebuild(structure, {name: tensor.to(device) for name, tensor in tensors.items()})
    except (SafetensorError, ValueError, LookupError, TypeError, OverflowError, AttributeError, ImportError) as error:
        raise WireError(f"damaged state: {type(error).__name__}: {error}") from None
    except RecursionError:
        raise WireError("damaged state: nested too deeply") from None


def view(body: Tensor) -> Any:
    """The state that ``dump`` wrote, its tensors views of ``body`` (uint8, CPU): for a file that is mapped, not read.

    Raises WireError as ``load``; the bytes must be a node's own.
    """
    try:
        start = 8 + int.from_bytes(body[:8].numpy().tobytes(), "little")
        header = json.loads(body[8:start].numpy().tobytes())
        structure = json.loads(header.pop("__metadata__")["structure"])
        return _rebuild(structure, {name: _viewed(body[start:], entry) for name, entry in header.items()})
    except (ValueError, LookupError, TypeError, OverflowError, AttributeError, ImportError, RuntimeError) as error:
        raise WireError(f"damaged state: {type(error).__name__}: {error}") from None


def _viewed(content: Tensor, entry: dict[str, Any]) -> Tensor:
    dtype, (start, stop) = DTYPES[entry["dtype"]], entry["data_offsets"]
    part = content[start:stop]
    if part.storage_offset() % dtype.itemsize:  # behind a tensor of bytes
        part = part.clone()
    return part.view(dtype).reshape(entry["shape"])


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal bit for bit (NaN equals NaN of the same bits)."""
    return digest(left) == digest(right)


def digest(state: Any) -> bytes:
    """Sixteen bytes over structure, shapes, dtypes and bits; the same on every device."""
    tensors: dict[str, Tensor] = {}
    structure = describe(state, tensors)
    total = hashlib.blake2b(json.dumps(structure, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.digest()


def to(state: Any, device: torch.device | str) -> Any:
    """The state with all tensors on a device; itself where they are there already."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, tuple):
        return tuple(to(item, device) for item in state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        before = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        after = {name: to(value, device) for name, value in before.items()}
        return state if all(after[name] is before[name] for name in before) else dataclasses.replace(state, **after)
    return state


def describe(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for a value; its tensors are put aside in ``tensors`` under running names."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors):05d}"
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, (bool, int, str)):
        return {"plain": value}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        if len(value) <= 64:
            return {"bytes": base64.b64encode(value).decode()}
        return {"long-bytes": describe(torch.frombuffer(bytearray(value), dtype=torch.uint8), tensors)["tensor"]}
    if isinstance(value, tuple):
        return {"tuple": [describe(item, tensors) for item in value]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {f.name: describe(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
        return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    raise TypeError(f"a state cannot hold a {type(value).__name__}")


NAMES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64"}
NAMES |= {torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL", torch.int8: "I8", torch.int16: "I16"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def _check_like(structure: Any, header: dict[str, Any], like: Any) -> None:
    """Refuse a structure, a shape or a dtype that the template does not have."""
    tensors: dict[str, Tensor] = {}
    if _skeleton(structure) != _skeleton(describe(like, tensors)):
        raise WireError("a state from a peer has another structure than this run's")
    for name, tensor in tensors.items():
        found = header[name]
        if found["shape"] != list(tensor.shape) or found["dtype"] != NAMES.get(tensor.dtype):
            raise WireError(f"a state from a peer has {found['dtype']} {found['shape']} for {tuple(tensor.shape)}")
    if len(header) != len(tensors) + 1:
        raise WireError("a state from a peer has superfluous tensors")


def _skeleton(node: Any) -> Any:
    """A structure without its plain values."""
    (kind, content), *_ = node.items()
    if kind == "tuple":
        return [kind, [_skeleton(item) for item in content]]
    if kind == "class":
        return [kind, content, {name: _skeleton(item) for name, item in node["fields"].items()}]
    return [kind, content if kind == "tensor" else None]


def _rebuild(node: Any, tensors: dict[str, Tensor]) -> Any:
    (kind, content), *rest = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "plain":
        return content
    if kind == "float":
        return float.fromhex(content)
    if kind == "long-bytes":
        return tensors[content].cpu().numpy().tobytes()
    if kind == "bytes":
        return base64.b64decode(content, validate=True)
    if kind == "tuple":
        return tuple(_rebuild(item, tensors) for item in content)
    fields = {name: _rebuild(item, tensors) for name, item in dict(rest)["fields"].items()}
    return _state_class(content)(**fields)


def _state_class(path: str) -> Any:
    """The dataclass of that path; only modules that are loaded already, or lie in our own rooms, are looked at."""
    module, _, name = path.partition(":")

    if module not in sys.modules and module.split(".")[0] not in ROOMS:
        raise WireError(f"a state of class {path!r} is unknown here")
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise WireError(f"{path!r} is no state")
    return found


__all__ = ["describe", "digest", "dump", "load", "same", "to", "view"]
