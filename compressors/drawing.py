"""The probabilities of the adaptive sparsifier: the limit that makes them add up, and the entries that are drawn."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.powers import Floats, exponent_above
from compressors.scope import Indices
from thinwire.blocks import each_block
from thinwire.random import NOISE_BLOCK, Key, noise_block, noise_keys, noise_on


def limit_of(x: Tensor, keep: int) -> float:
    """The t with sum min(1, |x_i| / t) = keep; 0 where no more than ``keep`` entries differ from zero.

    From the mean of all, which is too high, t falls to (mass of entries below t) / (keep - number of the others) until
    no entry changes sides. What is above an eighth of a t is set aside, so that few passes see the whole vector. Never
    above the largest finite number: a lower t keeps more entries and is as unbiased.
    """
    if int(torch.count_nonzero(x)) <= keep:
        return 0.0
    exponent = exponent_above(float(x.abs().max())) if x.dtype == torch.float64 else 0  # or their sum might overflow
    mass, large = split(x, math.inf, exponent)
    aside, limit = math.inf, mass / keep
    while True:
        if limit < aside:
            aside = limit / 8
            mass, large = split(x, aside, exponent)
        above = large >= limit
        room = keep - int(np.count_nonzero(above))  # 0 where the others vanish beside them
        lower = (mass + float(large[~above].sum())) / room if room else limit
        if not lower < limit:
            return min(_raised(limit, exponent), float(torch.finfo(x.dtype).max))
        limit = lower


def _raised(value: float, exponent: int) -> float:
    """value 2^exponent, infinity where it is beyond float64."""
    with np.errstate(over="ignore"):
        return float(np.ldexp(np.float64(value), exponent))


def split(x: Tensor, bound: float, exponent: int) -> tuple[float, NDArray[np.float64]]:
    """The sum of the magnitudes below the bound, and the magnitudes not below it, in units of 2^exponent (float64)."""
    if x.device.type != "cpu":
        return split_on(x, bound, exponent)
    values = x.numpy()
    with np.errstate(over="ignore"):
        edge = values.dtype.type(_raised(bound, exponent))

    def work(start: int, stop: int) -> tuple[float, NDArray[np.float64]]:
        magnitudes = np.abs(values[start:stop])
        small = magnitudes < edge
        large = magnitudes[~small].astype(np.float64)
        below = np.where(small, magnitudes, magnitudes.dtype.type(0))
        if exponent:
            below, large = np.ldexp(below, -exponent), np.ldexp(large, -exponent)
        return float(below.sum(dtype=np.float64)), large

    found = each_block(len(values), NOISE_BLOCK, work)
    return math.fsum(mass for mass, _ in found), np.concatenate([large for _, large in found])


def split_on(x: Tensor, bound: float, exponent: int) -> tuple[float, NDArray[np.float64]]:
    """The same on the vector's device; the sum in another order."""
    magnitudes, limit = x.abs(), _raised(bound, exponent)
    large = magnitudes[magnitudes >= limit].double().cpu().numpy()
    below = torch.where(magnitudes < limit, magnitudes, 0).double()
    for part in (exponent // 2, exponent - exponent // 2):
        below, large = below * math.ldexp(1.0, -part), large * math.ldexp(1.0, -part)
    return float(below.sum()), large


def draw(x: Tensor, limit: float, key: Key) -> tuple[Indices, Indices]:
    """Ascending indices of the entries not below the limit, and of the others that are drawn."""
    if limit == 0:
        return x.nonzero()[:, 0].cpu().numpy(), np.zeros(0, np.int64)
    if x.device.type != "cpu":
        return draw_on(x, limit, key)
    values, pairs = x.numpy(), noise_keys(key, x.numel())

    def work(start: int, stop: int) -> tuple[Indices, Indices]:
        words, count = np.empty(stop - start, np.uint32), stop - start
        noise_block(pairs[start // NOISE_BLOCK], words, np.empty(count, np.uint32))
        share = np.abs(values[start:stop]) / values.dtype.type(limit)
        sure = share >= 1
        share[sure] = 0
        level = (share * values.dtype.type(2.0**32)).astype(np.uint32)
        drawn, at_level = np.flatnonzero(words < level), np.flatnonzero((words == level) & ~sure)
        drawn = with_ties(drawn, at_level, share[at_level], key, start)
        return np.flatnonzero(sure) + start, drawn + start

    found = each_block(len(values), NOISE_BLOCK, work)
    return np.concatenate([sure for sure, _ in found]), np.concatenate([drawn for _, drawn in found])


def draw_on(x: Tensor, limit: float, key: Key) -> tuple[Indices, Indices]:
    """The same entries, found on the vector's device."""
    words = noise_on(key, x.numel(), x.device).long() & 0xFFFFFFFF
    share = x.abs() / torch.tensor(limit, dtype=x.dtype)
    sure = share >= 1
    share = torch.where(sure, 0, share)
    level = (share * 2.0**32).long()
    at_level, drawn = (words == level) & ~sure, words < level
    ties = at_level.nonzero()[:, 0]
    whole, found = (mask.nonzero()[:, 0].cpu().numpy() for mask in (sure, drawn))
    return whole, with_ties(found, ties.cpu().numpy(), share[ties].cpu().numpy(), key)


def with_ties(drawn: Indices, at_level: Indices, share: Floats, key: Key, start: int = 0) -> Indices:
    """The drawn indices and those whose word of noise ends level with their probability: another word decides."""
    if not len(at_level):
        return drawn
    rest = np.mod(share.astype(np.float64) * 2.0**32, 1)
    words = [int(key.at("low").words(1, start=4 * (start + index))[0]) for index in at_level.tolist()]
    return np.sort(np.append(drawn, at_level[np.array(words) * 2.0**-64 < rest]))
