"""Killed at any step that touches a disk: started again, the run has the bits of an undisturbed one."""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_exactly_once import PROBLEM, assert_mirrors_match, ef21
from world import World

import server.run_directory as run_directory
from client.store import DiskClientStore
from server.journal import Journal
from server.mirrors import MirrorFiles
from server.run_directory import RunDirectory

ROUNDS = 9


class Killed(BaseException):
    """kill -9."""


@cache
def undisturbed() -> bytes:
    return World(ef21("top-k"), PROBLEM, participation=0.5).play(ROUNDS).digest()


def kill_at(number: int, before: bool, monkeypatch: pytest.MonkeyPatch, *steps: tuple[Any, str]) -> Callable[[], bool]:
    """Die once, at the ``number``-th call of these steps, before or after its work; tells whether it happened."""
    calls = itertools.count()
    dead: list[int] = []

    def wrap(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            due = next(calls) == number
            if due and before:
                dead.append(number)
                raise Killed
            result = work(*arguments, **named)
            if due:
                dead.append(number)
                raise Killed
            return result

        return step

    for owner, name in steps:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    return lambda: bool(dead)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("number", range(0, 30, 2))
def test_a_server_killed_at_any_write_ends_with_the_same_bits(
    number: int, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(ef21("top-k"), PROBLEM, participation=0.5, folder=tmp_path, checkpoint={"every": 3})
    happened = kill_at(
        number,
        before,
        monkeypatch,
        (Journal, "append"),
        (Journal, "start"),
        (MirrorFiles, "write"),
        (MirrorFiles, "sync"),
        (run_directory, "write_checkpoint"),
    )
    while world.ledger.replicated.version < ROUNDS:
        try:
            world.play(1)
        except Killed:
            world.kill_server()
            world.start_server()
    assert happened()
    assert world.digest() == undisturbed()
    assert isinstance(world.store, RunDirectory)
    assert_mirrors_match(world)
    world.kill_server()


@pytest.mark.parametrize("number", range(12))
def test_a_mirror_torn_by_a_kill_is_made_again_from_the_journal(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(ef21("top-k"), PROBLEM, participation=0.5, folder=tmp_path, checkpoint={"every": 4})
    writes = itertools.count()
    write = MirrorFiles.write

    def torn(files: MirrorFiles, client: int, chain: bytes, mirror: Any) -> None:
        write(files, client, chain, mirror)
        if next(writes) == number:
            path = files._path(client, files._newest[client][0])
            path.write_bytes(path.read_bytes()[: 40 + 8 * number])
            raise Killed

    monkeypatch.setattr(MirrorFiles, "write", torn)
    while world.ledger.replicated.version < ROUNDS:
        try:
            world.play(1)
        except Killed:
            world.kill_server()
            world.start_server()
    assert world.digest() == undisturbed()
    assert_mirrors_match(world)
    for record in world.ledger.roster.clients:
        assert record.fresh or world.store.read_mirror(record.index, record.chain) is not None
    world.kill_server()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("number", range(0, 40, 3))
def test_a_client_killed_at_any_write_ends_with_the_same_bits(
    number: int, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(
        ef21("top-k"), PROBLEM, participation=0.5, client_folder=tmp_path, round={"deadline_seconds": 5.0, "retries": 0}
    )
    answer = world.network._answer

    def restarting(ask: Any, parts: Any) -> Any:
        try:
            return answer(ask, parts)
        except Killed:
            world.start_client(ask.node - 100)
            return answer(ask, parts)

    monkeypatch.setattr(world.network, "_answer", restarting)
    happened = kill_at(
        number,
        before,
        monkeypatch,
        (DiskClientStore, "write"),
        (DiskClientStore, "rename"),
        (DiskClientStore, "remove"),
    )
    world.play(ROUNDS)
    assert happened()
    assert world.digest() == undisturbed()
    assert_mirrors_match(world)
