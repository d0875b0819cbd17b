"""Layouts: how a model becomes one vector and back."""

import pytest
import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout

LAYOUT = Layout((Entry("a", (2, 3)), Entry("b", ()), Entry("empty", (0, 5)), Entry("c", (4,))))


def test_offsets_and_size_follow_the_entries():
    assert LAYOUT.offsets == (0, 6, 7, 7, 11)
    assert LAYOUT.numel == 11
    assert Layout.flat(5).numel == 5
    assert Layout(()).numel == 0


def test_a_vector_is_cut_and_joined_without_loss():
    vector = torch.arange(11.0)
    tensors = LAYOUT.unflatten(vector)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {e.name: e.shape for e in LAYOUT.entries}
    assert torch.equal(LAYOUT.flatten({**tensors, "other": torch.zeros(3)}), vector)
    assert LAYOUT.flatten(tensors, torch.float64).dtype == torch.float64
    tensors["a"][0, 0] = 9.0
    assert vector[0] == 9.0, "unflatten gives views"
    assert [entry.name for entry, piece in LAYOUT.pieces(vector) if piece.numel() == entry.numel] == [
        "a",
        "b",
        "empty",
        "c",
    ]


def test_missing_or_misshapen_tensors_are_named():
    tensors = LAYOUT.unflatten(torch.zeros(11))
    with pytest.raises(ConfigError, match="'c' is missing"):
        LAYOUT.flatten({name: tensor for name, tensor in tensors.items() if name != "c"})
    with pytest.raises(ConfigError, match="'c' has shape"):
        LAYOUT.flatten({**tensors, "c": torch.zeros(5)})


def test_a_position_knows_its_tensor():
    assert [LAYOUT.name_at(index) for index in (0, 5, 6, 7, 10)] == ["a", "a", "b", "c", "c"]
    with pytest.raises(IndexError):
        LAYOUT.name_at(11)


def test_frozen_parameters_take_no_room_but_count_in_the_digest():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].weight.requires_grad_(False)
    layout = Layout.of(model, trainable=lambda name: name != "1.bias")
    assert [entry.name for entry in layout.entries] == ["0.bias", "1.weight"]
    assert [entry.name for entry in layout.frozen] == ["0.weight", "1.bias"]
    assert layout.digest != Layout(layout.entries).digest
    with pytest.raises(ConfigError, match="no trainable parameter"):
        Layout.of(model, trainable=lambda name: False)


def test_digests_tell_names_shapes_and_order_apart():
    a, b = Entry("a", (2, 3)), Entry("b", (6,))
    layouts = [
        Layout((a, b)),
        Layout((b, a)),
        Layout((Entry("a", (3, 2)), b)),
        Layout((a,), (b,)),
        Layout((Entry("c", (2, 3)), b)),
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)
    assert Layout((a, b)).digest == Layout((Entry("a", (2, 3)), Entry("b", (6,)))).digest
    assert Layout((a, b)).digest.hex() == "4b97f62b36a303acf1cb5149d10433cd"
