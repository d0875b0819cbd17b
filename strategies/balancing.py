"""Orders of examples whose gradients balance: GraB, PairBalance and CD-GraB as functions of plain values.

Lu, Guo, De Sa, "GraB: finding provably better data permutations than random reshuffling", NeurIPS 2022,
https://arxiv.org/abs/2205.10733; Cooper, Guo, Pham, Yuan, Ruan, Lu, De Sa, "Coordinating distributed example orders
for provably accelerated training", NeurIPS 2023, https://arxiv.org/abs/2302.00845.

    balance(s, v):   eps = +1 if <s, v> <= 0 else -1 ;  s <- s + eps v
    GraB:            v_j = g_j - (mean of the previous epoch) ;  eps = +1: j goes left, else right
    PairBalance:     v = g_a - g_b of consecutive units a, b ;  eps = +1: a left, b right, else b left, a right
    CD-GraB:         one s on the server: for every pair position, for every client in ascending index, balance(s, v)
    next order:      the left list, then the right list reversed

s running sum, v a difference of gradients (or a sketch of one), a unit an example or a microbatch, g_j its gradient.
The middle of an odd order has no partner and stays in the middle. Signs are 1 for +1 and 0 for -1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]
Signs = NDArray[np.uint8]
Vectors = NDArray[np.float64]

BLOCK = 64
"""Vectors whose inner products are taken together; one matrix product instead of that many walks through s."""


def pairs(count: int) -> int:
    """How many pairs an order of ``count`` units has."""
    return count // 2


def balance(total: Vectors, vectors: Vectors, own: Sequence[Vectors] = (), weight: float = 1.0) -> Signs:
    """The signs of ``vectors`` (rows), one after the other; ``total`` (the running sum s) moves in place.

    With ``own``, row i is judged by ``s + weight * own[i]``, and ``own[i]`` moves too: the hybrid of a sum that all
    clients share and one for each. Rows may share their sum: pass the same array.
    """
    signs = np.empty(len(vectors), np.uint8)
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        sums = own[start : start + BLOCK]
        _balance_block(total, rows, sums, weight, signs[start : start + BLOCK])
    return signs


def _balance_block(total: Vectors, rows: Vectors, own: Sequence[Vectors], weight: float, signs: Signs) -> None:
    gram = rows @ rows.T
    reach = rows @ total
    for i, mine in enumerate(own):
        reach[i] += weight * float(rows[i] @ mine)
    owner = np.array([mine.__array_interface__["data"][0] for mine in own])  # which rows share a sum
    eps = np.empty(len(rows))
    for i in range(len(rows)):
        eps[i] = 1.0 if reach[i] <= 0 else -1.0
        later = gram[i, i + 1 :]
        reach[i + 1 :] += eps[i] * later
        if len(own):
            reach[i + 1 :] += eps[i] * weight * later * (owner[i + 1 :] == owner[i])
    total += eps @ rows
    for sign, mine, row in zip(eps, own, rows, strict=False):
        mine += sign * row
    signs[:] = eps > 0


def coordinate(
    differences: Sequence[Vectors],
    local_weight: float = 0.0,
    total: Vectors | None = None,
    own: Sequence[Vectors] = (),
) -> list[Signs]:
    """The server's part: the signs of every client's pair differences (one array of shape (pairs, k) each).

    Pair-major, client-minor in the given order; a client with fewer pairs drops out when its own are exhausted.
    ``local_weight`` 0 is CD-GraB, 1 the hybrid for partial participation. The sums start at zero, or go on with
    ``total`` and each client's ``own``, which move in place.
    """
    longest = max(map(len, differences), default=0)
    turns = [(t, i) for t in range(longest) for i, v in enumerate(differences) if t < len(v)]
    signs = [np.empty(len(v), np.uint8) for v in differences]
    if not turns:
        return signs
    total = np.zeros(differences[turns[0][1]].shape[1]) if total is None else total
    sums = (list(own) or [np.zeros_like(total) for _ in differences]) if local_weight else []
    for start in range(0, len(turns), BLOCK):
        block = turns[start : start + BLOCK]
        rows = np.stack([differences[i][t] for t, i in block]).astype(np.float64)
        found = balance(total, rows, [sums[i] for _, i in block] if sums else (), local_weight)
        for (t, i), sign in zip(block, found, strict=True):
            signs[i][t] = sign
    return signs


def next_order(order: Order, signs: Signs) -> Order:
    """The order after an epoch, from the signs of its pairs: left list, the odd one, right list reversed."""
    count = pairs(len(order))
    if len(signs) != count:
        raise ValueError(f"{len(signs)} signs for an order of {len(order)} units; {count} are needed")
    first, second = order[0 : 2 * count : 2], order[1 : 2 * count : 2]
    plus = signs.astype(bool)
    left, right = np.where(plus, first, second), np.where(plus, second, first)
    return np.concatenate([left, order[2 * count :], right[::-1]])


def next_order_of_units(order: Order, signs: Signs) -> Order:
    """The order after an epoch of GraB, from one sign per unit: those of +1, then those of -1 reversed."""
    if len(signs) != len(order):
        raise ValueError(f"{len(signs)} signs for an order of {len(order)} units")
    plus = signs.astype(bool)
    return np.concatenate([order[plus], order[~plus][::-1]])


def pair_differences(gradients: Vectors, order: Order) -> Vectors:
    """``g_a - g_b`` of the consecutive pairs of an order; gradients by unit, shape (units, d)."""
    count = pairs(len(order))
    return gradients[order[0 : 2 * count : 2]] - gradients[order[1 : 2 * count : 2]]


def herding_bound(gradients: Sequence[Vectors], orders: Sequence[Order]) -> float:
    """``max_t |sum_{j<=t} sum_i (g_{i, order_i(j)} - mean)|_inf``: how far a partial pass strays from the mean."""
    mean = np.concatenate([np.asarray(g) for g in gradients]).mean(0)
    longest = max(len(order) for order in orders)
    steps = np.zeros((longest, gradients[0].shape[1]))
    for vectors, order in zip(gradients, orders, strict=True):
        steps[: len(order)] += vectors[order] - mean
    return float(np.abs(np.cumsum(steps, 0)).max())
