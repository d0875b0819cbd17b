"""A client may ask whether it would be let in, and learns why not; nobody else notices."""

import pytest
from fleet_support import Events, clients, fleet

from client.fleet import SessionOptions
from client.knock import knock
from thinwire import __version__


def test_a_knock_is_answered_and_leaves_the_client_of_that_name_alone() -> None:
    events = Events()
    with fleet(events) as grid, clients(grid.address, "ann"):
        nodes = grid.wait_for_nodes(1, 10)
        answer = knock(SessionOptions(grid.address, "ann"))
        assert answer.welcome
        assert answer.software == f"thinwire {__version__}"
        assert abs(answer.skew_seconds) <= answer.trip_seconds / 2 + 0.1  # the one clock may be set while we look
        assert grid.get_node_ids() == nodes
        assert [kind for kind, _, _ in events.seen] == ["opened"]


def test_a_knock_takes_no_place_in_the_fleet() -> None:
    with fleet() as grid:
        assert knock(SessionOptions(grid.address, "ann")).welcome
        assert grid.get_node_ids() == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"token": "wrong"}, "wrong token"), ({"token": "right", "identity": "bob"}, "unknown identity 'bob'")],
)
def test_a_knock_that_is_refused_says_why(options: dict[str, str], reason: str) -> None:
    with fleet(token="right", roster=("ann",)) as grid:
        answer = knock(SessionOptions(grid.address, **{"identity": "ann", **options}))
    assert not answer.welcome
    assert reason in answer.reason


def test_a_knock_at_a_finished_run_says_so() -> None:
    with fleet() as grid:
        grid.finish("all rounds are done")
        with clients(grid.address, "ann") as (session,):
            assert session.join() == "all rounds are done"
        answer = knock(SessionOptions(grid.address, "ann"))
    assert (answer.welcome, answer.reason) == (True, "all rounds are done")


def test_a_knock_where_nobody_lives_is_no_answer() -> None:
    answer = knock(SessionOptions("127.0.0.1:1", "ann"), seconds=1)
    assert not answer.welcome
    assert answer.reason
