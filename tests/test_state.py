"""States as values: saved, compared, digested, and read from bytes of which nothing is trusted."""

import json
import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thinwire import state
from thinwire.errors import WireError


@dataclass(frozen=True)
class Inner:
    h: Tensor
    name: str = "inner"


@dataclass(frozen=True)
class Outer:
    x: Tensor
    inner: Inner
    count: int = 3
    ratio: float = 0.1
    nothing: Any = None
    flags: tuple[Any, ...] = (True, b"short", b"long" * 100)


class NoState:
    pass


def example() -> Outer:
    return Outer(torch.arange(6.0).view(2, 3), Inner(torch.tensor([1.0, -0.0], dtype=torch.float64)))


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_structure(data: bytes, structure: Any) -> bytes:
    header, body = parts(data)
    header["__metadata__"]["structure"] = json.dumps(structure)
    return joined(header, body)


# -- round trips ------------------------------------------------------------------------------------------------


def test_a_state_comes_back_with_every_kind_of_value():
    loaded = state.load(state.dump(example()))
    assert isinstance(loaded, Outer)
    assert state.same(loaded, example())
    assert (loaded.count, loaded.ratio, loaded.nothing, loaded.flags) == (3, 0.1, None, (True, b"short", b"long" * 100))
    assert loaded.flags[0] is True
    assert loaded.inner.name == "inner"


def viewed(data: bytes) -> Any:
    return state.view(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def test_a_view_is_the_state_and_lies_in_the_bytes():
    body = torch.frombuffer(bytearray(state.dump(example())), dtype=torch.uint8)
    seen = state.view(body)
    assert state.same(seen, example())
    assert seen.x.untyped_storage().data_ptr() == body.untyped_storage().data_ptr()


def test_a_view_holds_numbers_that_lie_behind_an_odd_number_of_bytes():
    value = (
        torch.arange(3, dtype=torch.uint8),
        torch.tensor([1.5, -2.5], dtype=torch.float64),
        torch.zeros(0),
        b"x" * 99,
    )
    assert state.same(viewed(state.dump(value)), value)


def test_a_damaged_view_is_refused():
    data = state.dump(example())
    header, body = parts(data)
    header["t00000"]["data_offsets"] = [0, 1 << 20]
    unknown = {**header, "t00000": {**header["t00000"], "dtype": "F7"}}
    for broken in (data[:-1], data[:5], b"", joined(header, body), joined(unknown, body), b"\xff" * 20):
        with pytest.raises(WireError, match="damaged state"):
            viewed(broken) if broken else state.view(torch.zeros(0, dtype=torch.uint8))


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_tensors_of_any_dtype_and_shape_come_back(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    loaded = state.load(state.dump((tensor,)))[0]
    assert loaded.dtype == dtype
    assert loaded.shape == shape
    assert state.same(loaded, tensor)


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=200),
        lambda inner: st.lists(inner, max_size=4).map(tuple),
        max_leaves=12,
    )
)
def test_plain_values_come_back_with_all_their_bits(value):
    loaded = state.load(state.dump((value, torch.zeros(1))))[0]
    assert state.same(loaded, value)
    assert repr(loaded) == repr(value)


def test_views_of_one_vector_and_the_same_tensor_twice_are_saved_as_they_are():
    vector = torch.arange(10.0)
    loaded = state.load(state.dump((vector[2:5], vector[::2], vector, vector)))
    assert [t.tolist() for t in loaded] == [[2, 3, 4], [0, 2, 4, 6, 8], vector.tolist(), vector.tolist()]


def test_a_gradient_is_not_saved_with_its_history():
    tensor = torch.ones(2, requires_grad=True) * 2
    assert not state.load(state.dump((tensor,)))[0].requires_grad


def test_what_is_no_state_is_refused_by_its_type():
    for value in ([1], {"a": 1}, NoState(), Outer, 1j):
        with pytest.raises(TypeError, match="cannot hold a"):
            state.dump(value)


# -- equality ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"count": 4},
        {"ratio": math.nextafter(0.1, 1)},
        {"nothing": 0},
        {"flags": (True, b"short", b"long" * 99 + b"lonk")},
        {"flags": (1, b"short", b"long" * 100)},
        {"x": torch.arange(6.0)},
        {"x": torch.arange(6.0).view(3, 2)},
        {"x": torch.arange(6).view(2, 3)},
        {"inner": Inner(torch.tensor([1.0, 0.0], dtype=torch.float64))},
        {"inner": Inner(torch.tensor([1.0, -0.0]))},
    ],
)
def test_any_difference_changes_the_digest(change):
    assert not state.same(example(), replace(example(), **change))
    assert state.digest(example()) != state.digest(replace(example(), **change))


def test_the_digest_is_of_bits_so_that_nan_equals_itself():
    nan = torch.tensor([float("nan"), 1.0])
    assert state.same(nan, nan.clone())
    assert len(state.digest(nan)) == 16


def test_the_digest_does_not_depend_on_how_a_tensor_lies_in_memory():
    matrix = torch.arange(6.0).view(2, 3)
    assert state.digest(matrix.T.contiguous().T) == state.digest(matrix)


def test_a_state_moves_to_a_device_whole():
    moved = state.to((example(), None, 1), "meta")
    assert moved[0].inner.h.device.type == "meta"
    assert moved[1:] == (None, 1)


# -- hostile bytes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64, b"[]", state.dump((torch.ones(3),))[:-1]])
def test_bytes_that_are_no_state_are_wire_errors(data):
    with pytest.raises(WireError, match="damaged state"):
        state.load(data)


@pytest.mark.parametrize(
    "structure",
    [
        None,
        [],
        {},
        7,
        {"tensor": "t00009"},
        {"tensor": ["t00000"]},
        {"unknown": 1},
        {"float": "no number"},
        {"float": 1},
        {"float": "0x1p9999"},
        {"bytes": "!"},
        {"bytes": 1},
        {"tuple": 1},
        {"tuple": [1]},
        {"long-bytes": "t00009"},
        {"class": "os:environ", "fields": {}},
        {"class": "os:system", "fields": {}},
        {"class": "builtins:exec", "fields": {"source": {"plain": "1/0"}}},
        {"class": "subprocess:Popen", "fields": {}},
        {"class": "antigravity:geohash", "fields": {}},
        {"class": "thinwire.nowhere:X", "fields": {}},
        {"class": "thinwire.layout:Nothing", "fields": {}},
        {"class": "thinwire.layout", "fields": {}},
        {"class": "thinwire.layout:Entry", "fields": {}},
        {"class": "thinwire.layout:Entry"},
        {"class": "thinwire.layout:Entry", "fields": {"nonsense": {"plain": 1}}},
        {"class": 5, "fields": {}},
    ],
)
def test_a_structure_that_no_state_has_is_a_wire_error(structure):
    with pytest.raises(WireError):
        state.load(with_structure(state.dump((torch.ones(3),)), structure))


@pytest.mark.parametrize("structure", [{"tuple": [{"plain": 1}] * 3}, None, {"tensor": "t00000"}])
def test_with_a_template_it_is_still_a_wire_error(structure):
    template = (torch.ones(3), torch.ones(2))
    with pytest.raises(WireError):
        state.load(with_structure(state.dump(template), structure), like=template)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_changed_byte_is_a_wire_error_or_a_state_of_the_same_structure(data):
    whole = state.dump(example())
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    try:
        loaded = state.load(changed, like=example())
    except WireError:
        return
    assert isinstance(loaded, Outer)
    assert (loaded.x.shape, loaded.x.dtype) == ((2, 3), torch.float32)


def test_a_deep_structure_is_a_wire_error_and_no_crash():
    structure = '{"tuple":[' * 100_000 + "]}" * 100_000
    header, body = parts(state.dump((torch.ones(1),)))
    header["__metadata__"]["structure"] = structure
    with pytest.raises(WireError):
        state.load(joined(header, body))
    with pytest.raises(WireError):
        state.load(joined(header, body), like=(torch.ones(1),))


# -- what is expected -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(example(), x=torch.zeros(3, 2)), r"\[3, 2\] for \(2, 3\)"),
        (replace(example(), x=torch.zeros(2, 3, dtype=torch.float64)), "F64"),
        (replace(example(), x=None), "another structure"),
        (replace(example(), nothing=torch.zeros(1)), "another structure"),
        (replace(example(), flags=()), "another structure"),
        (example().inner, "another structure"),
        ((example(),), "another structure"),
    ],
)
def test_a_template_refuses_another_structure_shape_or_dtype(other, message):
    with pytest.raises(WireError, match=message):
        state.load(state.dump(other), like=example())


def test_a_template_says_nothing_of_values():
    other = replace(example(), x=torch.full((2, 3), 7.0), count=9, ratio=2.5)
    assert state.same(state.load(state.dump(other), like=example()), other)


def test_a_tensor_that_nobody_asked_for_is_refused_before_it_is_made():
    header, body = parts(state.dump((torch.ones(3),)))
    end = len(body)
    header["extra"] = {"dtype": "F32", "shape": [2], "data_offsets": [end, end + 8]}
    with pytest.raises(WireError, match="superfluous"):
        state.load(joined(header, body + b"\0" * 8), like=(torch.ones(3),))


def test_a_state_is_loaded_to_the_device_asked_for():
    assert state.load(state.dump(example().inner), "meta").h.device.type == "meta"
