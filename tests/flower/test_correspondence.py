"""One server and one client at a time: both ends move by the uplinks that counted, and by no other."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from apps_support import Letters, quadratic

from strategies.correspondence import REST, Shown
from strategies.transport import EVALUATE, HELLO, MESSAGE, ROUND, UPLINK, WELCOME
from thinwire.errors import ConfigError, RoundError, WireError
from thinwire.random import Key, coin
from thinwire.wire.exchange import RoundReply, digest

NAMES = ["ann", "bob", "eve"]
METHODS = ["ef14", "ef21", "ef21-sgdm", "econtrol"]


def show(letters: Letters, number: int) -> Shown:
    """The model of a round: something that moves."""
    start = quadratic("start")
    return letters.correspondence.show({**start, "x": start["x"] / number})


def direction(letters: Letters, name: str, number: int) -> torch.Tensor:
    """What the client's function does at the model of a round."""
    x = torch.from_numpy(show(letters, number).x.numpy())
    return (x - torch.from_numpy(quadratic(name)["x"])) / 2


def test_under_lost_replies_every_direction_that_counted_arrives_or_is_still_owed(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    counted = {name: torch.zeros(300) for name in NAMES}
    arrived = {name: torch.zeros(300) for name in NAMES}
    lost = 0
    for number in range(1, 21):
        for node, name in enumerate(NAMES):
            if coin(Key(1, name, number), 0.4):
                continue  # not asked
            shown = show(letters, number)
            question = letters.correspondence.ask(ROUND, node, number, shown)
            if coin(Key(2, name, number), 0.4):
                letters.carry(question, name)
                letters.correspondence.close(question)
                lost += 1
                continue
            heard, _ = letters.hear(question, name)
            assert heard.arrays is not None
            arrived[name] += shown.x - torch.from_numpy(heard.arrays["x"])
            counted[name] += direction(letters, name, number)
    assert lost > 10
    for node, name in enumerate(NAMES):
        owed = letters.private(name, letters.correspondence.ask(ROUND, node, 99, show(letters, 99)).chain).e
        assert owed.norm() > 0.1
        # float32 sums of twenty vectors of norm 3
        torch.testing.assert_close(arrived[name] + owed, counted[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", ["ef21", "ef21-sgdm", "econtrol", "diana"])
def test_under_lost_replies_the_servers_mirrors_are_the_clients_own_bit_for_bit(method: str, tmp_path: Path) -> None:
    uplink = {"name": "rand-k", "fraction": 0.2} if method == "diana" else None
    letters = Letters.under(method, tmp_path, uplink)
    for number in range(1, 13):
        for node, name in enumerate(NAMES):
            question = letters.correspondence.ask(ROUND, node, number, show(letters, number))
            if coin(Key(3, name, number), 0.5):
                letters.carry(question, name)
            else:
                letters.hear(question, name)
    estimator = letters.correspondence.terms.alone
    for node, name in enumerate(NAMES):
        chain = letters.correspondence.ask(ROUND, node, 99, show(letters, 99)).chain
        own = estimator.mirror(letters.private(name, chain))
        assert own is not None
        assert own.norm() > 0.1
        assert torch.equal(own, letters.correspondence._mirrors[name])


def test_ef21_tells_the_whole_direction_of_a_client_that_moves_no_more(tmp_path: Path) -> None:
    letters = Letters.under("ef21", tmp_path)
    shown = letters.correspondence.show(quadratic("start"))
    errors = []
    for number in range(1, 16):
        heard, _ = letters.hear(letters.correspondence.ask(ROUND, 0, number, shown), "ann")
        assert heard.arrays is not None
        end = shown.x - direction(letters, "ann", 1)
        errors.append(float((torch.from_numpy(heard.arrays["x"]) - end).norm()))
    assert errors[10] < 1e-6 < errors[0]  # a tenth of the entries each time: exact after ten
    assert heard.arrays["count"] == 4


@pytest.mark.parametrize("method", ["ef14", "ef21"])
def test_a_client_that_comes_back_under_another_node_goes_on_where_it_was(method: str, tmp_path: Path) -> None:
    letters, steady = Letters.under(method, tmp_path / "a"), Letters.under(method, tmp_path / "b")
    for number in range(1, 7):
        node = 1 if number < 4 else 2  # its SuperNode was restarted
        heard, repeats = letters.hear(letters.correspondence.ask(ROUND, node, number, show(letters, number)), "ann")
        expected, _ = steady.hear(steady.correspondence.ask(ROUND, 1, number, show(steady, number)), "ann")
        assert repeats == (number == 4)
        assert heard.arrays is not None
        assert expected.arrays is not None
        assert (heard.arrays["x"] == expected.arrays["x"]).all()


def test_a_reply_that_was_lost_before_the_node_changed_does_not_lock_the_client_out(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    letters.carry(letters.correspondence.ask(ROUND, 1, 1, show(letters, 1)), "ann")  # the server never hears of it
    heard, repeats = letters.hear(letters.correspondence.ask(ROUND, 2, 2, show(letters, 2)), "ann")
    assert heard.arrays is not None
    assert repeats == 0


def test_two_nodes_of_one_name_are_refused_as_long_as_both_are_there(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    letters.hear(letters.correspondence.ask(ROUND, 1, 1, show(letters, 1)), "ann", online={1, 2})
    with pytest.raises(WireError, match="two nodes call themselves 'ann'"):
        letters.hear(letters.correspondence.ask(ROUND, 2, 1, show(letters, 1)), "ann", online={1, 2})
    heard, _ = letters.hear(letters.correspondence.ask(ROUND, 2, 2, show(letters, 2)), "ann", online={2})
    assert heard.arrays is not None


def test_a_client_that_lost_its_disk_is_given_its_mirror(tmp_path: Path) -> None:
    letters = Letters.under("ef21", tmp_path)
    for number in range(1, 4):
        letters.hear(letters.correspondence.ask(ROUND, 1, number, show(letters, number)), "ann")
    for slot in ("committed", "pending", "replica", "welcome"):
        letters.store("ann").remove(slot)
    heard, repeats = letters.hear(letters.correspondence.ask(ROUND, 1, 4, show(letters, 4)), "ann")
    assert heard.arrays is not None
    assert repeats == 3  # the run, the replica, the private state
    chain = letters.correspondence.ask(ROUND, 1, 5, show(letters, 5)).chain
    assert torch.equal(letters.private("ann", chain).g, letters.correspondence._mirrors["ann"])


@pytest.mark.parametrize("method", METHODS)
def test_a_client_that_lost_its_disk_and_its_node_begins_anew_on_both_ends(method: str, tmp_path: Path) -> None:
    letters = Letters.under(method, tmp_path)
    for number in range(1, 4):
        letters.hear(letters.correspondence.ask(ROUND, 1, number, show(letters, number)), "ann")
    letters.state = tmp_path / "another disk"
    for number in range(4, 7):
        heard, repeats = letters.hear(letters.correspondence.ask(ROUND, 2, number, show(letters, number)), "ann")
        assert heard.arrays is not None
        assert repeats == 0
    estimator = letters.correspondence.terms.alone
    if estimator.mirrored:
        chain = letters.correspondence.ask(ROUND, 2, 9, show(letters, 9)).chain
        own = estimator.mirror(letters.private("ann", chain))
        assert own is not None
        assert torch.equal(own, letters.correspondence._mirrors["ann"])


def test_a_question_is_answered_once_and_a_later_one_makes_it_void(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    first = letters.correspondence.ask(ROUND, 1, 1, show(letters, 1))
    late = letters.carry(first, "ann")
    second = letters.correspondence.ask(ROUND, 1, 2, show(letters, 2))
    with pytest.raises(WireError, match="too late"):
        letters.correspondence.hear(first, late, ())
    answer = letters.carry(second, "ann")
    assert letters.correspondence.hear(second, dict(answer), ()).arrays is not None
    with pytest.raises(WireError, match="too late"):
        letters.correspondence.hear(second, answer, ())
    heard, repeats = letters.hear(letters.correspondence.ask(ROUND, 1, 3, show(letters, 3)), "ann")
    assert heard.arrays is not None
    assert repeats == 0


def test_a_question_that_comes_twice_trains_once(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    question = letters.correspondence.ask(ROUND, 1, 1, show(letters, 1))
    assert UPLINK in letters.carry(question, "ann")
    again = letters.carry(question, "ann")
    assert UPLINK not in again
    assert "answered before" in RoundReply.FromString(again[MESSAGE]).detail


@pytest.mark.parametrize(
    "downlink", ["natural", {"name": "top-k", "fraction": 0.1}, {"name": "natural", "channel": "direct"}]
)
def test_a_client_that_was_away_gets_what_it_missed_and_holds_the_servers_replica(
    downlink: object, tmp_path: Path
) -> None:
    letters = Letters.under("ef14", tmp_path, downlink=downlink)
    for number in range(1, 9):
        for node, name in enumerate(NAMES):
            if number % (node + 1) == 0:
                heard, repeats = letters.hear(
                    letters.correspondence.ask(ROUND, node, number, show(letters, number)), name
                )
                assert heard.arrays is not None
                assert repeats == 0
                held = letters.store(name).read("replica")
                assert held.version == letters.correspondence._replicated.version
                assert torch.equal(held.replica.method, letters.correspondence._replicated.replica.method)


@pytest.mark.parametrize(
    "downlink", ["identity", {"name": "identity", "channel": "direct"}, {"name": "identity", "channel": "ef21-p"}]
)
def test_clients_of_one_round_may_be_shown_different_models(downlink: object, tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path, uplink="identity", downlink=downlink)
    start = quadratic("start")
    models = [{**start, "x": start["x"] * scale} for scale in (1, -1, 1, -1)]
    for number in (1, 2):
        shown = [letters.correspondence.show(model) for model in models[:2]] * 2
        for node in range(4):
            name = f"client-{node}"
            heard, repeats = letters.hear(letters.correspondence.ask(ROUND, node, number, shown[node]), name)
            assert repeats == 0
            assert heard.arrays is not None
            end = (models[node]["x"] + quadratic(name)["x"]) / 2
            np.testing.assert_allclose(heard.arrays["x"], end, rtol=0, atol=1e-6)  # differences in float32


def test_an_evaluation_before_the_first_training_introduces_the_client(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path, downlink="natural")
    question = letters.correspondence.ask(EVALUATE, 1, 1, show(letters, 1))
    assert WELCOME in question.parts
    heard, _ = letters.hear(question, "ann")
    assert heard.arrays is None
    assert not heard.failure
    question = letters.correspondence.ask(ROUND, 1, 1, show(letters, 1))
    assert WELCOME not in question.parts
    assert question.size < 200  # the model is there, and so are the terms
    heard, repeats = letters.hear(question, "ann")
    assert heard.arrays is not None
    assert repeats == 0


def test_hostile_answers_count_for_nothing(tmp_path: Path) -> None:
    letters = Letters.under("ef21", tmp_path)
    letters.hear(letters.correspondence.ask(ROUND, 1, 1, show(letters, 1)), "ann")
    mirror = letters.correspondence._mirrors["ann"].clone()
    chain = letters.correspondence.ask(ROUND, 1, 2, show(letters, 2)).chain
    numbers = count(2)

    def attack(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
        question = letters.correspondence.ask(ROUND, 1, next(numbers), show(letters, 2))
        good = letters.carry(question, "ann")
        assert UPLINK in good
        with pytest.raises(WireError):
            letters.correspondence.hear(question, {**good, **change(good)}, ())
        assert letters.correspondence.ask(ROUND, 1, 99, show(letters, 2)).chain == chain
        assert torch.equal(letters.correspondence._mirrors["ann"], mirror)

    def signed(uplink: bytes, good: dict[str, bytes]) -> dict[str, bytes]:
        reply = RoundReply.FromString(good[MESSAGE])
        reply.uplink_digest = digest(uplink)
        return {MESSAGE: reply.SerializeToString(), UPLINK: uplink}

    def other(field: str, value: object, good: dict[str, bytes]) -> dict[str, bytes]:
        reply = RoundReply.FromString(good[MESSAGE])
        setattr(reply, field, value)
        return {MESSAGE: reply.SerializeToString()}

    for garbage in (b"", b"\xff" * 50, bytes(1 << 21)):
        attack(lambda good, uplink=garbage: {UPLINK: uplink})
        attack(lambda good, uplink=garbage: signed(uplink, good))
    attack(lambda good: signed(good[UPLINK][:-1], good))
    attack(lambda good: signed(bytes([*good[UPLINK][:40], good[UPLINK][40] ^ 1, *good[UPLINK][41:]]), good))
    for field, value in (("run", "0" * 32), ("round", 0), ("attempt", 5), ("client", 3), ("chain", b"x")):
        attack(lambda good, field=field, value=value: other(field, value, good))
    for part, garbage in ((REST, b"<f8" + b"\xff" * 8), (REST, b""), (MESSAGE, b"\x07"), (HELLO, b"\x07")):
        attack(lambda good, part=part, garbage=garbage: {part: garbage})
    heard, _ = letters.hear(letters.correspondence.ask(ROUND, 1, 98, show(letters, 3)), "ann")
    assert heard.arrays is not None


def test_an_uplink_of_another_codec_or_with_other_payloads_is_refused(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    other = Letters.under("ef14", tmp_path / "other", uplink="natural")
    question = letters.correspondence.ask(ROUND, 1, 1, show(letters, 1))
    good = letters.carry(question, "ann")
    foreign = other.carry(other.correspondence.ask(ROUND, 1, 1, show(other, 1)), "ann")[UPLINK]
    reply = RoundReply.FromString(good[MESSAGE])
    reply.uplink_digest = digest(foreign)
    with pytest.raises(WireError, match="codec 'scaled\\(natural\\)' is not allowed here"):
        letters.correspondence.hear(question, {**good, MESSAGE: reply.SerializeToString(), UPLINK: foreign}, ())


def test_a_client_whose_training_diverged_says_so_and_keeps_what_it_owes(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path)
    letters.hear(letters.correspondence.ask(ROUND, 1, 1, show(letters, 1)), "ann")
    chain = letters.correspondence.ask(ROUND, 1, 2, show(letters, 2)).chain
    owed = letters.private("ann", chain).e
    letters.diverges = True
    heard, _ = letters.hear(letters.correspondence.ask(ROUND, 1, 2, show(letters, 2)), "ann")
    assert heard.arrays is None
    assert "declined: tensor 'x' holds a non-finite value" in heard.failure
    assert letters.correspondence.ask(ROUND, 1, 3, show(letters, 3)).chain == chain
    assert torch.equal(letters.private("ann", chain).e, owed)


def test_a_model_that_is_not_finite_is_a_diverged_round(tmp_path: Path) -> None:
    letters = Letters.under("ef14", tmp_path, downlink="natural")
    start = quadratic("start")
    letters.correspondence.show(start)
    with pytest.raises(RoundError, match="diverged"):
        letters.correspondence.show({**start, "x": start["x"] * float("nan")})


def test_a_method_that_decides_rounds_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="decides rounds itself"):
        Letters.under("masha1", tmp_path, "natural")
