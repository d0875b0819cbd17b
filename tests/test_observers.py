"""Whoever watches a run is told everything and can stop nothing."""

import logging

from server.observers import Observers
from server.run_directory import RunDirectory
from strategies.store import Entry, Saved


class Listener:
    def __init__(self, fails=False):
        self.heard, self.closed, self.fails = [], 0, fails

    def record(self, kind, fields):
        self.heard.append((kind, dict(fields)))
        if self.fails:
            raise RuntimeError("out of ink")

    def close(self):
        self.closed += 1


def test_an_observer_hears_rounds_and_events_in_their_order(tmp_path):
    folder, listener = RunDirectory(tmp_path, durable=False), Listener()
    folder.observers.add(listener)
    folder.record("refused", {"client": "eve"})
    folder.record("round", {"round": 1})
    folder.close()
    assert listener.heard == [("refused", {"client": "eve"}), ("round", {"round": 1})]
    assert listener.closed == 1


def test_an_observer_that_fails_is_told_nothing_more_and_the_others_go_on(caplog):
    broken, sound, observers = Listener(fails=True), Listener(), Observers()
    observers.add(broken)
    observers.add(sound)
    with caplog.at_level(logging.ERROR):
        observers.record("round", {"round": 1})
        observers.record("round", {"round": 2})
    assert [fields["round"] for _, fields in broken.heard] == [1]
    assert [fields["round"] for _, fields in sound.heard] == [1, 2]
    assert "Listener failed on a record of kind 'round'" in caplog.text


def test_a_round_that_a_kill_left_without_a_row_is_told_when_it_is_replayed(tmp_path):
    with RunDirectory(tmp_path) as before:
        before.write_config({})
        before.checkpoint(Saved("ab" * 16, 0, 3, b"\3" * 16, (), (), ()))
        before.append(Entry(4, 0, (0, 1), [(0, b"uplink")], b"downlink"))  # decided; then the process was killed
    listener = Listener()
    with RunDirectory(tmp_path) as folder:
        folder.observers.add(listener)
        saved, entries = folder.load()
        assert (saved.round, [entry.round for entry in entries]) == (3, [4])
        (recorded,) = folder.rounds()
    (told,) = [fields for kind, fields in listener.heard if kind == "round"]
    assert told == {name: recorded[name] for name in told}
    assert (told["round"], told["asked"], told["replied"], told["uplink_bytes"]) == (4, [0, 1], [0], 6)
