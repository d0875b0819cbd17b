"""Partition: how the examples of one data set are dealt out to simulated clients, the same on every host."""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thinwire.errors import ConfigError
from thinwire.random import Key, permutation

Indices = NDArray[np.int64]
Kind = Literal["iid", "dirichlet", "shards", "natural", "all", "drawn"]


@dataclass(frozen=True)
class Scheme:
    """How examples are dealt out.

    iid: equal shares of a random order. dirichlet: each class by proportions from Dirichlet(alpha) (Hsu et al. 2019).
    shards: sorted by label, cut, ``shards`` pieces per client (McMahan et al. 2017); the last few examples that fill no
    piece are left out. natural: by an id that each example carries (a writer, a hospital); ids in ascending order, one
    to a client after the other. all: every client has everything, for real clients whose data are all their own. drawn:
    each client draws its own mix of classes from Dirichlet(alpha) and then ``drawn`` examples by it, with replacement:
    clients share examples, so that there may be any number of them, and each one's share is made when it is asked for.
    """

    kind: Kind = "iid"
    alpha: float = 0.3  # concentration, above 0; small is uneven
    shards: int = 2  # pieces per client
    minimum: int = 1  # examples that every client has at least; the largest shares give, but not those by natural id
    drawn: int = 20  # examples that a client draws

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha = {self.alpha} is not above 0")
        if self.shards < 1 or self.minimum < 1 or self.drawn < 1:
            raise ValueError(
                f"shards = {self.shards}, minimum = {self.minimum} and drawn = {self.drawn} must be at least 1"
            )


def divide(scheme: Scheme, groups: NDArray[Any], partitions: int, seed: int) -> tuple[Indices, ...]:
    """The indices (int64, read-only) of each partition, cached in this process.

    ``groups`` holds one integer per example: its label, or its natural id where the scheme is ``natural``; labels do
    not matter to ``iid`` and ``all``. The draws of ``dirichlet`` and ``shards`` come from NumPy through flwr-datasets:
    hosts need the same versions. Raises ConfigError when those lack their package, and when there are too few examples
    or ids. Not for ``drawn``, which divides nothing: ``draw``.
    """
    assert scheme.kind != "drawn", "clients that share examples draw them"
    if partitions < 1:
        raise ConfigError(f"partitions = {partitions} is below 1")
    if scheme.kind != "all" and partitions * scheme.minimum > len(groups):
        raise ConfigError(
            f"{len(groups)} examples are too few for {partitions} clients with at least {scheme.minimum} each; "
            "partition = 'drawn' lets clients share examples"
        )
    return _divide(scheme, np.ascontiguousarray(groups, dtype=np.int64).tobytes(), partitions, seed)


def draw(scheme: Scheme, labels: NDArray[Any], partition: int, seed: int) -> Indices:
    """The indices (int64, ``scheme.drawn`` of them, some perhaps twice) of one client under ``drawn``.

    They depend on the seed and the client's number only, not on how many clients there are. The draws come from NumPy:
    hosts need the same version. Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated
    visual classification", 2019, https://arxiv.org/abs/1909.06335, with replacement.
    """
    key = Key(seed, "partition/drawn", client=partition)
    random = np.random.Generator(np.random.Philox(key=np.frombuffer(key.digest(), dtype="<u8").astype(np.uint64)))
    order, starts, counts = _by_class(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
    # Gamma(a) is Gamma(a + 1) U^(1/a): in logarithms, for with a small concentration all classes would round to zero
    shape = scheme.alpha
    logarithms = np.log(random.gamma(shape + 1, size=len(counts))) + np.log1p(-random.random(len(counts))) / shape
    mix = np.exp(logarithms - logarithms.max())
    chosen = random.choice(len(counts), size=scheme.drawn, p=mix / mix.sum())
    within = (random.random(scheme.drawn) * counts[chosen]).astype(np.int64)
    return _sealed(order[starts[chosen] + within])


@lru_cache(maxsize=4)
def _by_class(labels: bytes) -> tuple[Indices, Indices, Indices]:
    """The examples class by class, where each class starts among them, and how many it has."""
    values = np.frombuffer(labels, dtype=np.int64)
    counts = np.unique(values, return_counts=True)[1]
    return np.argsort(values, kind="stable"), np.cumsum(counts) - counts, counts


@lru_cache(maxsize=16)
def _divide(scheme: Scheme, groups: bytes, partitions: int, seed: int) -> tuple[Indices, ...]:
    values = np.frombuffer(groups, dtype=np.int64)
    key = Key(seed, "partition")
    if scheme.kind == "all":
        return (_sealed(np.arange(len(values))),) * partitions
    if scheme.kind == "iid":
        shares = list(np.array_split(permutation(key, len(values)), partitions))
    elif scheme.kind == "natural":
        shares = _natural(values, partitions, scheme.minimum)
    else:
        shares = _borrowed(scheme, values, partitions, key)
    if scheme.kind != "natural":  # an example must not move to another owner
        _top_up(shares, scheme.minimum)
    return tuple(_sealed(share) for share in shares)


def _sealed(indices: NDArray[Any]) -> Indices:
    own = np.array(indices, dtype=np.int64)
    own.setflags(write=False)
    return own


def _natural(ids: Indices, partitions: int, minimum: int) -> list[Indices]:
    unique, position = np.unique(ids, return_inverse=True)
    if len(unique) < partitions:
        raise ConfigError(f"the data have {len(unique)} natural ids, too few for {partitions} clients")
    shares = [np.flatnonzero(position % partitions == client) for client in range(partitions)]
    smallest = min(len(share) for share in shares)
    if smallest < minimum:
        raise ConfigError(f"a client by natural id has {smallest} examples, fewer than the minimum of {minimum}")
    return shares


def _borrowed(scheme: Scheme, labels: Indices, partitions: int, key: Key) -> list[Indices]:
    """The share of each client by one of flwr-datasets' partitioners; examples sorted by label first, ties by index."""
    try:
        from datasets import Dataset
        from flwr_datasets import partitioner as kinds
    except ImportError as error:
        raise ConfigError(
            f'partition = {scheme.kind!r} needs the package {error.name!r}: pip install "thinwire[simulation]" '
            "(iid and all work without)"
        ) from None
    chosen: Any
    seed = key.integer()
    if scheme.kind == "dirichlet":
        chosen = kinds.DirichletPartitioner(partitions, "label", scheme.alpha, min_partition_size=0, seed=seed)
    else:
        chosen = kinds.ShardPartitioner(partitions, "label", num_shards_per_partition=scheme.shards, seed=seed)
    order = np.argsort(labels, kind="stable")
    chosen.dataset = Dataset.from_dict({"label": labels[order], "index": order})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [np.asarray(chosen.load_partition(i)["index"], dtype=np.int64) for i in range(partitions)]
    except (ValueError, ZeroDivisionError) as error:
        detail = str(error).partition(". ")[0]
        raise ConfigError(
            f"{len(labels)} examples cannot be cut into {scheme} for {partitions} clients: {detail}"
        ) from None


def _top_up(shares: list[Indices], minimum: int) -> None:
    """Move the last examples of the largest share to the smallest until every share has the minimum."""
    sizes = np.array([len(share) for share in shares])
    while sizes.min() < minimum:
        poor, rich = int(sizes.argmin()), int(sizes.argmax())
        moved = min(minimum - sizes[poor], sizes[rich] - minimum)
        if moved < 1:
            raise ConfigError(f"{int(sizes.sum())} examples are too few for {len(shares)} clients with {minimum} each")
        shares[poor] = np.concatenate([shares[poor], shares[rich][-moved:]])
        shares[rich] = shares[rich][:-moved]
        sizes[poor] += moved
        sizes[rich] -= moved
