"""The sampler for anyone's training loop."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from client.order import Balanced
from strategies.balancing import herding_bound
from thinwire.errors import ConfigError


def loop(order, vectors, epochs):
    """A training loop whose gradients are the rows of a matrix: a linear model that does not move."""
    model = nn.Linear(vectors.shape[1], 1, bias=False)
    bounds = []
    for _ in range(epochs):
        taken = []
        for (rows,) in DataLoader(TensorDataset(vectors), batch_sampler=order):
            model.zero_grad()
            model(rows).mean().backward()
            order.observe(model.parameters())
            taken.append(model.weight.grad[0].clone().numpy())
        bounds.append(herding_bound([np.stack(taken)], [np.arange(len(taken))]))
    return bounds


def test_the_loop_of_the_docs_balances_its_gradients():
    vectors = torch.from_numpy(np.random.Generator(np.random.Philox(1)).random((512, 8))).float()
    bounds = loop(Balanced(512, sketch=64), vectors, 8)
    assert np.mean(bounds[-3:]) < bounds[0] / 3


@pytest.mark.parametrize(("examples", "size"), [(0, 1), (1, 1), (7, 2), (8, 3), (9, 9), (5, 10)])
def test_every_example_comes_once_an_epoch(examples, size):
    order = Balanced(examples, size, sketch=4)
    weight = nn.Parameter(torch.ones(3))
    for _ in range(4):
        seen = []
        for batch in order:
            seen += batch
            weight.grad = torch.randn(3, generator=torch.Generator().manual_seed(len(seen)))
            order.observe([weight])
        assert sorted(seen) == list(range(examples))
    assert len(order) == -(-examples // size)


def test_an_epoch_that_was_not_observed_is_followed_by_a_random_one():
    order = Balanced(10)
    first, second = list(order), list(order)
    assert first != second
    assert sorted(first) == sorted(second)


def test_a_checkpoint_between_epochs_goes_on_alike():
    vectors = torch.from_numpy(np.random.Generator(np.random.Philox(2)).random((32, 4))).float()
    order = Balanced(32, 2, sketch=16)
    loop(order, vectors, 3)
    again = Balanced(32, 2, sketch=16)
    again.load_state_dict(order.state_dict())
    assert list(again) == list(order)
    with pytest.raises(ConfigError, match="5 microbatches"):
        Balanced(5).load_state_dict(order.state_dict())


def test_gradients_that_cannot_be_are_refused():
    order = Balanced(1)
    weight = nn.Parameter(torch.ones(3))
    list(order)
    order.observe([weight])
    with pytest.raises(ConfigError, match="2 gradients"):
        order.observe([weight])
    with pytest.raises(ConfigError, match="batch_size = 0"):
        Balanced(3, 0)
