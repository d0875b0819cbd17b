import builtins

import numpy as np
import pytest

from thinwire.errors import ConfigError
from thinwire.partition import Scheme, divide

LABELS = np.repeat(np.arange(10), 60)


def all_indices(shares):
    return np.sort(np.concatenate(shares))


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "natural"])
def test_every_example_belongs_to_exactly_one_client(kind):
    shares = divide(Scheme(kind), LABELS, 10, seed=3)
    assert len(shares) == 10
    assert np.array_equal(all_indices(shares), np.arange(600))
    assert all(share.dtype == np.int64 for share in shares)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards"])
def test_the_same_seed_gives_the_same_partition_and_another_seed_another(kind):
    from thinwire.partition import _divide

    first = divide(Scheme(kind), LABELS, 6, seed=1)
    _divide.cache_clear()
    again, other = divide(Scheme(kind), LABELS, 6, seed=1), divide(Scheme(kind), LABELS, 6, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_partition_is_made_once_per_process_and_cannot_be_changed_in_place():
    shares = divide(Scheme("iid"), LABELS, 4, seed=0)
    assert divide(Scheme("iid"), LABELS, 4, seed=0) is shares
    with pytest.raises(ValueError, match="read-only"):
        shares[0][0] = 7


def test_iid_shares_differ_by_one_example_at_most():
    sizes = {len(share) for share in divide(Scheme("iid"), LABELS[:-1], 7, seed=0)}
    assert sizes == {85, 86}


def test_shards_give_each_client_at_most_as_many_labels_as_shards():
    shares = divide(Scheme("shards", shards=2), LABELS, 10, seed=0)
    assert {len(share) for share in shares} == {60}
    assert max(len(np.unique(LABELS[share])) for share in shares) <= 2


def test_a_smaller_alpha_gives_a_more_uneven_partition():
    def spread(alpha):
        shares = divide(Scheme("dirichlet", alpha=alpha), LABELS, 10, seed=0)
        return np.std([np.bincount(LABELS[share], minlength=10) for share in shares])

    assert spread(0.1) > 2 * spread(10.0)


@pytest.mark.parametrize(("clients", "minimum"), [(100, 3), (300, 2), (600, 1)])
def test_every_client_gets_the_minimum_however_uneven_the_draw(clients, minimum):
    shares = divide(Scheme("dirichlet", alpha=0.05, minimum=minimum), LABELS, clients, seed=0)
    assert min(map(len, shares)) >= minimum
    assert np.array_equal(all_indices(shares), np.arange(600))


def test_natural_ids_are_never_split_between_clients():
    ids = np.array([7, 7, 3, 9, 3, 5, 9, 9])
    shares = divide(Scheme("natural", minimum=2), ids, 2, seed=0)
    assert [sorted(set(ids[share])) for share in shares] == [[3, 7], [5, 9]]
    with pytest.raises(ConfigError, match="4 natural ids, too few for 5 clients"):
        divide(Scheme("natural"), ids, 5, seed=0)
    with pytest.raises(ConfigError, match="has 1 examples, fewer than the minimum of 2"):
        divide(Scheme("natural", minimum=2), ids, 4, seed=0)


def test_all_gives_everything_to_everyone():
    assert all(np.array_equal(share, np.arange(600)) for share in divide(Scheme("all"), LABELS, 3, seed=0))


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards"])
def test_too_few_examples_are_refused(kind):
    with pytest.raises(ConfigError, match="600 examples are too few for 61 clients with at least 10 each"):
        divide(Scheme(kind, minimum=10), LABELS, 61, seed=0)


def test_more_shards_than_examples_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match="600 examples cannot be cut into"):
        divide(Scheme("shards", shards=20), LABELS, 100, seed=0)


def test_without_the_extra_iid_and_all_work_and_dirichlet_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_extra(name, *rest, **named):
        if name.partition(".")[0] in ("datasets", "flwr_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_extra)
    assert len(divide(Scheme("iid"), LABELS, 5, seed=11)) == 5
    assert len(divide(Scheme("all"), LABELS, 5, seed=11)) == 5
    with pytest.raises(ConfigError, match=r'pip install "thinwire\[simulation\]"'):
        divide(Scheme("dirichlet"), LABELS, 5, seed=11)


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"alpha": float("nan")}, {"shards": 0}, {"minimum": 0}])
def test_a_scheme_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Scheme("iid", **bad)
