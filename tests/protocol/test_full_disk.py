"""A disk that fills up stops the server with one line and costs nothing: with room again, the run has the same bits."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_crashes import ROUNDS, undisturbed
from test_exactly_once import PROBLEM, assert_mirrors_match, ef21
from world import World

from thinwire.errors import RoundError

PAGE_BYTES = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield path
    assert subprocess.run(["umount", str(path)]).returncode == 0


def leave(disk: Path, pages: int) -> Path:
    """Take all the room there is but so many pages."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with open(ballast, "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(PAGE_BYTES))
            except OSError:
                break
        file.truncate(max(0, file.tell() - PAGE_BYTES * pages))
    return ballast


@pytest.mark.parametrize("pages", range(0, 20, 2))
def test_a_server_whose_disk_is_full_goes_on_with_the_same_bits_when_there_is_room(pages: int, disk: Path) -> None:
    run = disk / "run"
    world = World(ef21("top-k"), PROBLEM, participation=0.5, folder=run, checkpoint={"every": 3}).play(2)
    ballast = leave(disk, pages)
    told = []
    while world.ledger.replicated.version < ROUNDS:
        try:
            world.play(1)
        except RoundError as error:
            told.append(str(error))
            ballast.unlink(missing_ok=True)
            world.kill_server()
            world.start_server()
    assert world.digest() == undisturbed()
    assert_mirrors_match(world)
    world.kill_server()
    assert pages > 4 or told
    for line in told:
        assert line.startswith("disk full: cannot write ")
        assert line.endswith(f"free some space and resume with thinwire server --resume {run}")
