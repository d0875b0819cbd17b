"""A checkpoint counts when it is whole; one that is not is told, and the one before it takes its place."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from store_kit import python, row

import server.checkpoints as checkpoints
from server.checkpoints import OLD_MAGIC, read_checkpoint, write_checkpoint
from server.run_directory import RunDirectory
from server.run_store import open_run, read_rounds
from strategies.store import ClientSaved, Entry, Saved
from thinwire import state
from thinwire.errors import ConfigError, RoundError


def saved(number: int, seed: int = 0) -> Saved:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1000 * seed + number))
    clients = (ClientSaved("hospital-0", 1.0, 10, b"\1" * 16, False, 0),)
    return Saved("ab" * 16, 0, number, bytes([number]) * 16, (values,), (values, 0.5), clients)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def body(folder: Path, number: int) -> Path:
    return folder / json.loads((folder / f"round-{number:08d}.json").read_text())["file"]


# -- what is written ----------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    for number in (20, 40):
        write_checkpoint(tmp_path, saved(number), keep=2)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert state.same(found, saved(40))


def test_the_state_is_a_safetensors_file_whose_digest_common_tools_compute(tmp_path):
    path = write_checkpoint(tmp_path, saved(20), keep=2)
    assert path == body(tmp_path, 20)
    assert [tuple(tensor.shape) for tensor in load_file(path).values()] == [(400,), (400,)]
    manifest = json.loads((tmp_path / "round-00000020.json").read_text())
    assert (manifest["round"], manifest["run"], manifest["bytes"]) == (20, "ab" * 16, path.stat().st_size)
    printed = subprocess.run(["b2sum", "-l", "128", str(path)], capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == manifest["blake2b"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept(keep, tmp_path):
    for number in range(10, 60, 10):
        write_checkpoint(tmp_path, saved(number), keep)
    kept = range(60 - 10 * keep, 60, 10)
    assert files(tmp_path) == sorted([body(tmp_path, n).name for n in kept] + [f"round-{n:08d}.json" for n in kept])


def test_a_round_whose_state_changed_is_written_anew(tmp_path):
    write_checkpoint(tmp_path, saved(20), keep=2)
    write_checkpoint(tmp_path, saved(20, seed=1), keep=2)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert state.same(found, saved(20, seed=1))
    assert len(files(tmp_path)) == 2


def test_no_checkpoint_is_none(tmp_path):
    assert read_checkpoint(tmp_path / "absent") is None


# -- damage -------------------------------------------------------------------------------------------------------


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "first byte": (lambda body, manifest: flip(body, 0), "another digest"),
    "a byte of a tensor": (lambda body, manifest: flip(body, -700), "another digest"),
    "last byte": (lambda body, manifest: flip(body, -1), "another digest"),
    "truncated": (lambda body, manifest: body.write_bytes(body.read_bytes()[:-1]), "its manifest says"),
    "empty": (lambda body, manifest: body.write_bytes(b""), "has 0 bytes"),
    "longer": (lambda body, manifest: body.write_bytes(body.read_bytes() + b"\0"), "its manifest says"),
    "no state": (lambda body, manifest: body.unlink(), "cannot be read: No such file"),
    "no manifest": (lambda body, manifest: manifest.unlink(), "it has no manifest"),
    "empty manifest": (lambda body, manifest: manifest.write_bytes(b""), "not JSON"),
    "binary manifest": (lambda body, manifest: manifest.write_bytes(b"\xff\x00" * 40), "not JSON"),
    "list as manifest": (lambda body, manifest: manifest.write_text("[1]"), "not whole"),
    "half a manifest": (lambda body, manifest: manifest.write_text('{"format": 1}'), "not whole"),
    "another digest": (lambda body, manifest: change(manifest, blake2b="0" * 32), "another digest"),
    "another round": (lambda body, manifest: change(manifest, history="00"), "another round or run"),
    "another file": (lambda body, manifest: change(manifest, file="../../secret"), "which is no checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(damage, tmp_path):
    write_checkpoint(tmp_path, saved(20), keep=2)
    spoil, reason = DAMAGE[damage]
    spoil(write_checkpoint(tmp_path, saved(40), keep=2), tmp_path / "round-00000040.json")
    told: list[tuple[str, str]] = []
    found = read_checkpoint(tmp_path, lambda name, why: told.append((name, why)))
    assert found is not None
    assert state.same(found, saved(20))
    assert all(name.startswith("round-00000040") for name, _ in told)
    assert reason in " ".join(why for _, why in told)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_all_of_them_is_an_error(damage, tmp_path):
    for number in (20, 40):
        DAMAGE[damage][0](write_checkpoint(tmp_path, saved(number), 2), tmp_path / f"round-{number:08d}.json")
    with pytest.raises(RoundError, match=r"every checkpoint in .* is damaged"):
        read_checkpoint(tmp_path)


def test_every_single_flipped_bit_of_a_manifest_is_found_or_changes_nothing(tmp_path):
    write_checkpoint(tmp_path, saved(20), keep=2)
    write_checkpoint(tmp_path, saved(40), keep=2)
    manifest = tmp_path / "round-00000040.json"
    sound = manifest.read_bytes()
    for place in range(len(sound)):
        flip(manifest, place)
        found = read_checkpoint(tmp_path)
        assert found is not None
        assert state.same(found, saved(found.round))
        manifest.write_bytes(sound)


def test_a_checkpoint_of_a_newer_version_is_refused_and_not_passed_over(tmp_path):
    for number in (20, 40):
        write_checkpoint(tmp_path, saved(number), keep=2)
    change(tmp_path / "round-00000040.json", format=7)
    with pytest.raises(ConfigError, match=r"has format 7 and this Thinwire knows 1"):
        read_checkpoint(tmp_path)


def test_what_was_damaged_ahead_is_gone_after_the_next_checkpoint(tmp_path):
    for number in (20, 40):
        write_checkpoint(tmp_path, saved(number), keep=2)
    flip(body(tmp_path, 40), 100)
    write_checkpoint(tmp_path, saved(25), keep=2)
    assert {name[:14] for name in files(tmp_path)} == {"round-00000020", "round-00000025"}


def test_a_run_directory_records_the_damage_once(tmp_path, caplog):
    with RunDirectory(tmp_path) as folder:
        for number in (20, 40):
            folder.checkpoint(saved(number))
    flip(body(tmp_path / "checkpoints", 40), 3)
    with RunDirectory(tmp_path) as folder:
        for _ in range(2):  # the command line looks first, then the strategy
            loaded = folder.load()
            assert loaded is not None
            assert loaded[0].round == 20
            assert list(loaded[1]) == []
    (event,) = open_run(tmp_path).events(kinds=["checkpoint-damaged"])
    assert event["file"] == "round-00000040.json"
    assert "another digest" in event["detail"]
    assert len([line for line in caplog.messages if "is damaged" in line]) == 1


def test_the_journal_goes_on_from_the_checkpoint_before_as_far_as_it_can(tmp_path):
    def entry(number: int) -> Entry:
        return Entry(number, 0, (0,), ((0, b"uplink"),), b"downlink")

    with RunDirectory(tmp_path) as folder:
        folder.checkpoint(saved(20))
        folder.append(entry(21))
        folder.append(entry(22))
    write_checkpoint(tmp_path / "checkpoints", saved(22), keep=2)  # killed before the journal started anew
    flip(body(tmp_path / "checkpoints", 22), -5)
    with RunDirectory(tmp_path) as folder:
        loaded = folder.load()
        assert loaded is not None
        assert (loaded[0].round, [found.round for found in loaded[1]]) == (20, [21, 22])


def test_a_round_that_a_kill_left_without_a_row_is_given_one_when_it_is_replayed(tmp_path):
    uplinks = ((0, b"uplink"), (2, b"another one"))
    with RunDirectory(tmp_path) as folder:
        folder.checkpoint(saved(20))
        folder.append(Entry(21, 0, (0, 1, 2), uplinks, b"downlink"))
        folder.record("round", row(21))
        folder.append(Entry(22, 1, (0, 1, 2), uplinks, b"downlink"))  # killed here: decided, and not recorded
    with RunDirectory(tmp_path) as folder:
        loaded = folder.load()
        assert loaded is not None
        assert [entry.round for entry in loaded[1]] == [21, 22]
    recorded, replayed = read_rounds(tmp_path)
    assert recorded == {**row(21), "time": recorded["time"]}
    assert (replayed["round"], replayed["attempt"], replayed["asked"], replayed["replied"]) == (
        22,
        1,
        [0, 1, 2],
        [0, 2],
    )
    assert (replayed["uplink_bytes"], replayed["downlink_bytes"]) == (17, 24)
    assert replayed["client_bytes"] == {"0": [6, 8], "1": [0, 8], "2": [11, 8]}
    assert replayed["dense_bytes"] == 8000 // 4 * 5  # as much for a message as in round 21
    assert "loss" not in replayed


# -- older files --------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_an_older_version_is_read_and_makes_room_for_new_ones(tmp_path):
    def old(number: int) -> Path:
        data = state.dump(saved(number))
        path = tmp_path / f"round-{number:08d}.checkpoint"
        path.write_bytes(OLD_MAGIC + bytes.fromhex(checkpoints._digest([data])) + data)
        return path

    old(20)
    flip(old(40), -1)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert state.same(found, saved(20))
    for number in (21, 22):
        write_checkpoint(tmp_path, saved(number), keep=2)
    assert {name[:14] for name in files(tmp_path)} == {"round-00000021", "round-00000022"}


# -- kill -9 and full disks ---------------------------------------------------------------------------------------

WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from server.checkpoints import write_checkpoint
from test_checkpoints import saved

for number in itertools.count(int(sys.argv[2])):
    write_checkpoint(Path(sys.argv[1]), saved(1 + number // 2 % 200, seed=number), keep=2)
    print(number, flush=True)
"""


def test_a_server_killed_while_it_writes_checkpoints_always_has_a_sound_one(tmp_path):
    told = 0
    for kill in range(2):
        with python(WRITE_FOR_EVER, tmp_path, told + 1) as process:
            assert process.stdout is not None
            for _ in range(5 + 20 * kill):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
        found = read_checkpoint(tmp_path)
        assert found is not None
        last = [saved(1 + number // 2 % 200, seed=number) for number in (told, told + 1)]
        assert any(state.same(found, one) for one in last)


def test_a_full_disk_leaves_the_checkpoint_before_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.parent.mkdir()
    write_checkpoint(folder, saved(20), keep=2)
    before = files(folder)
    code = """
import resource, signal, sys
from pathlib import Path
from server.checkpoints import write_checkpoint
from test_checkpoints import saved
from thinwire.errors import RoundError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    write_checkpoint(Path(sys.argv[1]), saved(40), keep=2)
except RoundError as error:
    print(error)
"""
    with python(code, folder) as process:
        out, err = process.communicate()
    assert err == ""
    assert out.startswith(f"disk full: cannot write checkpoint {folder}")
    assert out.endswith(f"free some space and resume with thinwire server --resume {folder.parent}\n")
    assert files(folder) == before
    assert os.listdir(folder.parent) == ["checkpoints"]
