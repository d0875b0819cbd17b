"""What orders are measured on: logistic regression by one example of every client per step, and random vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from strategies.balancing import (
    Order,
    Vectors,
    balance,
    coordinate,
    herding_bound,
    next_order,
    next_order_of_units,
    pair_differences,
)
from thinwire.random import Key, choose, permutation, uniforms

Compress = Callable[[Vectors], Vectors]
"""From differences (rows x d) to what the server gets of them (rows x k)."""

KINDS = ("random", "grab", "id-grab", "cd-grab", "hybrid")


def renewed(
    kind: str,
    orders: list[Order],
    seen: list[Vectors],
    cohort: tuple[int, ...],
    key: Key,
    compress: Compress | None = None,
) -> list[Order]:
    """All orders after a pass of ``cohort``; ``seen[i]`` has client i's gradients in the order it went through them."""
    after = list(orders)
    if kind == "random":
        for i in cohort:
            after[i] = permutation(key.at("order", client=i), len(orders[i]))
        return after
    if kind == "grab":
        for i in cohort:
            after[i] = next_order_of_units(orders[i], balance(_zero(seen[i]), seen[i] - seen[i].mean(0)))
        return after
    differences = [pair_differences(seen[i], np.arange(len(seen[i]))) for i in cohort]
    if kind == "id-grab":
        signs = [balance(_zero(rows), rows) for rows in differences]
    else:
        sent = differences if compress is None else [compress(rows) for rows in differences]
        signs = coordinate(sent, 1.0 if kind == "hybrid" else 0.0)
    for i, found in zip(cohort, signs, strict=True):
        after[i] = next_order(orders[i], found)
    return after


def bounds(gradients: list[Vectors], kind: str, rounds: int, participation: float = 1.0, seed: int = 0) -> list[float]:
    """The herding bound before the first and after every pass over fixed vectors; absent clients keep their order."""
    n, key = len(gradients), Key(seed, "herding")
    orders = [permutation(key.at("first", client=i), len(g)) for i, g in enumerate(gradients)]
    found = [herding_bound(gradients, orders)]
    for number in range(1, rounds + 1):
        cohort = tuple(choose(key.at("cohort", round=number), n, max(1, round(participation * n))).tolist())
        seen = [g[order] for g, order in zip(gradients, orders, strict=True)]
        orders = renewed(kind, orders, seen, cohort, key.at(round=number))
        found.append(herding_bound(gradients, orders))
    return found


def random_vectors(clients: int, units: int, numel: int = 16, seed: int = 0, shift: float = 0.0) -> list[Vectors]:
    """Uniform vectors of norm about 1 at most; with ``shift`` each client's around a centre of its own."""
    key = Key(seed, "vectors")
    drawn = [uniforms(key.at(client=i), units * numel).reshape(units, numel) for i in range(clients)]
    centres = uniforms(key.at("centres"), clients * numel).reshape(clients, numel) - 0.5
    return [(v + shift * c) / (numel / 3) ** 0.5 for v, c in zip(drawn, centres, strict=True)]


@dataclass(frozen=True)
class OrderedLogistic:
    """``f(x) = mean log(1 + exp(-y <a, x>)) + lam/2 |x|^2``, the features' scale falling as ``j^-decay``."""

    clients: int = 8
    rows: int = 256
    numel: int = 200
    decay: float = 0.75
    lam: float = 1e-3
    seed: int = 0

    @cached_property
    def data(self) -> tuple[Vectors, Vectors]:
        """Features (clients, rows, numel) of mean squared norm 1, and labels -1 or 1."""
        random = np.random.Generator(np.random.Philox(self.seed))
        features = random.standard_normal((self.clients, self.rows, self.numel))
        features *= np.arange(1.0, self.numel + 1) ** -self.decay
        features /= np.sqrt((features**2).sum(-1).mean())
        truth = random.standard_normal(self.numel)
        labels = np.sign(features @ truth + 0.3 * random.standard_normal(features.shape[:2]))
        return features, labels

    def gradients(self, x: Vectors, features: Vectors, labels: Vectors) -> Vectors:
        """One row per example."""
        slope = -(labels / (1 + np.exp(labels * (features @ x))))
        return np.asarray(slope[..., None] * features + self.lam * x, dtype=np.float64)

    def value(self, x: Vectors) -> float:
        """f(x)."""
        features, labels = self.data
        return float(np.log1p(np.exp(-labels * (features @ x))).mean() + self.lam / 2 * x @ x)

    @cached_property
    def least(self) -> float:
        """f at its minimiser, by Newton's method."""
        features, labels = self.data
        flat, signs = features.reshape(-1, self.numel), labels.reshape(-1)
        x = np.zeros(self.numel)
        for _ in range(40):
            slope = 1 / (1 + np.exp(-(flat @ x)))
            hessian = (flat.T * (slope * (1 - slope))) @ flat / len(flat) + self.lam * np.eye(self.numel)
            x = x - np.linalg.solve(hessian, self.gradients(x, flat, signs).mean(0))
        return self.value(x)

    def gaps(self, kind: str, epochs: int = 10, rate: float = 1.0, compress: Compress | None = None) -> list[float]:
        """f - f* after every epoch; a step takes one example of every client, each in its own order."""
        features, labels = self.data
        key, n = Key(self.seed, "ordered logistic"), self.clients
        orders = [permutation(key.at("first", client=i), self.rows) for i in range(n)]
        x, found = np.zeros(self.numel), []
        for epoch in range(1, epochs + 1):
            seen: NDArray[np.float64] = np.empty_like(features)
            for step in range(self.rows):
                chosen = [int(order[step]) for order in orders]
                seen[:, step] = self.gradients(x, features[range(n), chosen], labels[range(n), chosen])
                x = x - rate * seen[:, step].mean(0)
            orders = renewed(kind, orders, list(seen), tuple(range(n)), key.at(round=epoch), compress)
            found.append(self.value(x) - self.least)
        return found


def _zero(rows: Vectors) -> Vectors:
    return np.zeros(rows.shape[1])
