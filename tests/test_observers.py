"""Whoever watches a run is told everything and can stop nothing."""

import logging

from server.observers import Observers
from server.run_directory import RunDirectory


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
