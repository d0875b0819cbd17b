"""A client's state on its disk: mapped where it is large, whole or absent, and never changed under who reads it."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from client.store import MAPPED_BYTES, DiskClientStore
from thinwire import state

RUN = "0" * 32


@dataclass(frozen=True)
class Private:
    g: Tensor
    step: int = 3


def private(seed: int, numel: int = MAPPED_BYTES) -> Private:
    return Private(torch.randn(numel, generator=torch.Generator().manual_seed(seed)))


def mapped(path: Path) -> bool:
    """Whether this process has the file in its memory."""
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what a process has mapped")
def test_a_large_state_is_mapped_as_long_as_somebody_has_it_and_a_small_one_is_read(tmp_path: Path) -> None:
    store = DiskClientStore(tmp_path, RUN, "one")
    store.write("committed", private(1))
    store.write("pending", private(2, 10))
    large, small = store.read("committed"), store.read("pending")
    folder = tmp_path / RUN / "one"
    assert mapped(folder / "committed.state")
    assert not mapped(folder / "pending.state")
    assert state.same((large, small), (private(1), private(2, 10)))
    del large
    assert not mapped(folder / "committed.state")


def test_who_has_read_a_state_keeps_it_when_the_file_is_replaced_or_removed(tmp_path: Path) -> None:
    store = DiskClientStore(tmp_path, RUN, "one")
    store.write("committed", private(1))
    first = store.read("committed")
    store.write("pending", private(2))
    store.rename("pending", "committed")
    second = store.read("committed")
    store.remove("committed")
    assert state.same((first, second), (private(1), private(2)))
    assert store.read("committed") is None


def test_to_write_to_a_state_that_was_read_changes_no_file(tmp_path: Path) -> None:
    store = DiskClientStore(tmp_path, RUN, "one")
    store.write("committed", private(1))
    read = store.read("committed")
    assert read is not None
    read.g.zero_()
    assert state.same(store.read("committed"), private(1))


@pytest.mark.parametrize("numel", [10, MAPPED_BYTES])
def test_a_file_that_is_cut_short_changed_or_empty_is_none(numel: int, tmp_path: Path) -> None:
    store = DiskClientStore(tmp_path, RUN, "one")
    store.write("committed", private(1, numel))
    path = tmp_path / RUN / "one" / "committed.state"
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:30], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(broken)
        assert store.read("committed") is None
    path.write_bytes(whole)
    assert state.same(store.read("committed"), private(1, numel))
