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
from safetensors.torch import save as save_tensors
from torch import Tensor

from thinwire.errors import WireError

ROOMS = ("thinwire", "compressors", "strategies", "client", "server")


def dump(state: Any) -> bytes:
    """The state as safetensors, its structure in the metadata. Tensors are moved to the CPU."""
    tensors: dict[str, Tensor] = {}
    structure = _describe(state, tensors)
    # A tensor may occur twice (views of one vector); safetensors wants each on its own.
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return save_tensors(own, metadata={"structure": json.dumps(structure)})


def load(data: bytes, device: torch.device | str = "cpu") -> Any:
    """The state that ``dump`` wrote. Raises WireError when the bytes are damaged or name a class that is no state."""
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        structure = json.loads(header["__metadata__"]["structure"])
        tensors = load_tensors(data)
        return _rebuild(structure, {name: tensor.to(device) for name, tensor in tensors.items()})
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError, ImportError) as error:
        raise WireError(f"damaged state: {type(error).__name__}: {error}") from None


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal bit for bit (NaN equals NaN of the same bits)."""
    return digest(left) == digest(right)


def digest(state: Any) -> bytes:
    """Sixteen bytes over structure, shapes, dtypes and bits; the same on every device."""
    tensors: dict[str, Tensor] = {}
    structure = _describe(state, tensors)
    total = hashlib.blake2b(json.dumps(structure, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return total.digest()


def to(state: Any, device: torch.device | str) -> Any:
    """The state with all tensors on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, tuple):
        return tuple(to(item, device) for item in state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return dataclasses.replace(state, **{f.name: to(getattr(state, f.name), device) for f in dataclasses.fields(state)})
    return state


def _describe(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for a value; tensors are put aside under running names."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors):05d}"
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, (bool, int, str)):
        return {"plain": value}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"tuple": [_describe(item, tensors) for item in value]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {f.name: _describe(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
        return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    raise TypeError(f"a state cannot hold a {type(value).__name__}")


def _rebuild(node: Any, tensors: dict[str, Tensor]) -> Any:
    (kind, content), *rest = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "plain":
        return content
    if kind == "float":
        return float.fromhex(content)
    if kind == "bytes":
        return base64.b64decode(content)
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


__all__ = ["digest", "dump", "load", "same", "to"]
