"""Where the tensors live: the device, the threads, and the state of torch's own generators."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from thinwire.errors import ConfigError
from thinwire.random import Key


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (the first CUDA device, or else the CPU), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises ConfigError when the device is not there, saying which are.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    known = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]
    if name not in known:
        reason = "" if count or not name.startswith("cuda") else "; this PyTorch sees no CUDA device"
        raise ConfigError(f"device = {name!r} is not there{reason}; known here: {', '.join(known)}")
    return torch.device("cuda:0" if name == "cuda" else name)


def set_threads(count: int) -> None:
    """Let torch compute on ``count`` CPU threads; 0 takes every core that this process may use."""
    if count < 0:
        raise ConfigError(f"threads = {count} is below 0; 0 takes all cores")
    wanted = count or len(os.sched_getaffinity(0))
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)


@contextmanager
def seeded(key: Key, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators of the CPU and the device start from the key; after, they are as before.

    One thread of a process at a time: the generators are global.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    kept = [generator.get_state() for generator in generators]
    seed = key.integer()
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, before in zip(generators, kept, strict=True):
            generator.set_state(before)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Inside, cuDNN uses only algorithms that give the same bits each time; nothing to do on the CPU."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
