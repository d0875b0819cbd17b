"""Somebody's named arrays cut into a vector and the rest, and joined again."""

import numpy as np
import pytest
import torch

from strategies.cut import CARRIED, Cut
from thinwire.errors import ConfigError, WireError


def model() -> dict[str, np.ndarray]:
    return {
        "conv": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([0.5, 1.5], np.float16),
        "norm.running_var": np.array([1.0, 2.0], np.float32),
        "norm.num_batches_tracked": np.array(41, np.int64),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }


def test_what_is_floating_point_and_no_statistic_is_compressed() -> None:
    cut = Cut.of(model())
    assert [entry.name for entry in cut.layout.entries] == ["conv", "half"]
    assert [piece.name for piece in cut.spared] == ["norm.running_var", "norm.num_batches_tracked", "mask", "empty"]
    assert cut.dtype == torch.float32
    assert Cut.of({"x": np.zeros(2), "y": np.zeros(2, np.float32)}).dtype == torch.float64
    assert [e.name for e in Cut.of(model(), dense=("half", "norm.*")).layout.entries] == ["conv"]


def test_a_model_comes_back_bit_for_bit_in_its_order_and_dtypes() -> None:
    arrays = model()
    cut = Cut.of(arrays)
    joined = cut.join(cut.vector(arrays), cut.read_rest(cut.rest(arrays)))
    assert list(joined) == list(arrays)
    for name, array in arrays.items():
        assert joined[name].dtype == array.dtype
        assert joined[name].shape == array.shape
        assert np.array_equal(joined[name], array)


def test_the_rest_keeps_the_dtype_that_aggregation_gave_it() -> None:
    arrays = model()
    cut = Cut.of(arrays)
    arrays["norm.num_batches_tracked"] = np.array(41.25)  # FedAvg's mean of counters
    found = cut.read_rest(cut.rest(arrays))["norm.num_batches_tracked"]
    assert found.dtype == np.float64
    assert found == 41.25


@pytest.mark.parametrize("dtype", CARRIED)
def test_every_carried_dtype_travels_exactly(dtype: str) -> None:
    arrays = {"x": np.ones(1, np.float32), "y.running_mean": np.array([[0, 1], [1, 0]]).astype(dtype)}
    cut = Cut.of(arrays)
    found = cut.read_rest(cut.rest(arrays))["y.running_mean"]
    assert found.dtype.str == dtype
    assert np.array_equal(found, arrays["y.running_mean"])


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), np.array(["a"]), np.zeros(2, ">f4")])
def test_other_dtypes_are_refused_by_name(array: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="'odd' has dtype"):
        Cut.of({"x": np.zeros(1, np.float32), "odd": array})


def test_a_model_without_floats_is_refused() -> None:
    with pytest.raises(ConfigError, match="no array of floating point"):
        Cut.of({"count": np.zeros(3, np.int64)})


def test_another_model_is_refused_by_the_array_that_differs() -> None:
    arrays = model()
    cut = Cut.of(arrays)
    with pytest.raises(ConfigError, match="'conv' has shape"):
        cut.vector({**arrays, "conv": np.zeros((3, 2), np.float32)})
    with pytest.raises(ConfigError, match="'mask' is missing"):
        cut.rest({name: array for name, array in arrays.items() if name != "mask"})
    assert cut.fits(arrays)
    assert not cut.fits({**arrays, "more": np.zeros(1)})


def test_hostile_bytes_of_the_rest_are_refused_before_anything_is_made_of_them() -> None:
    arrays = model()
    cut = Cut.of(arrays)
    good = cut.rest(arrays)
    for cutoff in range(len(good)):
        with pytest.raises(WireError):
            cut.read_rest(good[:cutoff])
    with pytest.raises(WireError, match="follow"):
        cut.read_rest(good + b"x")
    with pytest.raises(WireError, match="dtype"):
        cut.read_rest(b"|O8" + good[3:])
    with pytest.raises(WireError, match="boolean"):
        cut.read_rest(good.replace(b"|b1\x01\x00", b"|b1\x07\x00"))


def test_a_mask_that_is_not_finite_travels_as_it_is_or_not_at_all() -> None:
    masked = {"x": np.ones(1, np.float32), "mask": np.array([-np.inf, 1.0], np.float32)}
    with pytest.raises(ConfigError, match="array 'mask' holds a value that is not finite; if it may, name it in dense"):
        Cut.of(masked)
    assert [piece.name for piece in Cut.of(masked, dense=("mask",)).spared] == ["mask"]


def test_a_value_that_is_not_finite_is_taken_only_where_the_model_has_one() -> None:
    masked = {"x": np.ones(1, np.float32), "n.running_mean": np.array([-np.inf, 1.0], np.float32)}
    cut = Cut.of(masked)
    assert np.isinf(cut.read_rest(cut.rest(masked), masked)["n.running_mean"][0])
    poisoned = {**masked, "n.running_mean": np.array([-np.inf, np.nan], np.float32)}
    with pytest.raises(WireError, match="not finite"):
        cut.read_rest(cut.rest(poisoned), masked)


def test_a_description_from_a_peer_is_checked() -> None:
    cut = Cut.of(model())
    assert Cut.of_plain(cut.to_plain()) == cut
    for plain in (
        None,
        [["x"]],
        [["x", "<f4", [-1], True]],
        [["x", "<f4", [1 << 40], True]],
        [["x", "<i8", [3], True]],
        [["x", "<f4", [3], False]],
        [["x", "O", [3], True]],
        [["x", "<f4", [3], True], ["x", "<f4", [3], True]],
    ):
        with pytest.raises(WireError):
            Cut.of_plain(plain)
