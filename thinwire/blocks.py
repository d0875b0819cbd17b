"""Long arrays, block by block, on the threads of the run: NumPy and the entropy coders release Python's lock."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def each_block(count: int, size: int, work: Callable[[int, int], T], fewest: int = 32) -> list[T]:
    """``work(start, stop)`` for the blocks of ``size`` that cover ``range(count)``; results in the order of the blocks.

    Runs on at most ``torch.get_num_threads()`` threads, the run's own setting; the result must not depend on them. With
    less than ``fewest`` blocks no thread is started: it would take longer than the work.
    """
    spans = [(start, min(start + size, count)) for start in range(0, count, size)]
    if len(spans) < max(2, fewest):  # first: to count processors takes longer than most short vectors
        return [work(start, stop) for start, stop in spans]
    threads = min(torch.get_num_threads(), os.cpu_count() or 1, len(spans))
    if threads < 2:
        return [work(start, stop) for start, stop in spans]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda span: work(*span), spans))
