import pytest
from fleet_support import RUN, ask, content, echo
from flwr.app import Array, Context, Message

from server.grids.in_process import InProcessGrid
from thinwire.errors import ConfigError


def test_apps_run_in_node_order_one_at_a_time_when_their_replies_are_pulled() -> None:
    order = []

    def note(message: Message, context: Context) -> Message:
        order.append(context.node_config["partition-id"])
        return echo(message, context)

    grid = InProcessGrid(note, 4, RUN)
    ids = grid.push_messages([ask(node) for node in reversed(grid.get_node_ids())])
    assert order == []
    replies = grid.replies(ids)
    next(replies)
    assert order == [0]
    assert len(list(replies)) == 3
    assert order == [0, 1, 2, 3]


def test_every_node_has_a_context_of_its_own_that_lasts() -> None:
    seen: dict[int, list[Context]] = {}

    def note(message: Message, context: Context) -> Message:
        seen.setdefault(context.node_id, []).append(context)
        return echo(message, context)

    grid = InProcessGrid(note, 2, RUN, run_config={"rate": 0.5}, identities=["ann", "bob"])
    for _ in range(2):
        grid.send_and_receive([ask(node) for node in grid.get_node_ids()], timeout=0)
    for index, node in enumerate(grid.get_node_ids()):
        first, second = seen[node]
        assert first is second
        assert first.node_config == {"partition-id": index, "num-partitions": 2, "client-id": ["ann", "bob"][index]}
        assert first.run_config == {"rate": 0.5}
        assert first.run_id == RUN


def test_a_keyboard_interrupt_passes_through() -> None:
    def interrupted(message: Message, context: Context) -> Message:
        raise KeyboardInterrupt

    grid = InProcessGrid(interrupted, 1, RUN)
    with pytest.raises(KeyboardInterrupt):
        grid.send_and_receive([ask(grid.get_node_ids()[0])])


def test_arrays_are_passed_without_copying_their_bytes() -> None:
    data = bytes(1000)
    found = []

    def note(message: Message, context: Context) -> Message:
        found.append(message.content["arrays"]["x"])
        return echo(message, context)

    grid = InProcessGrid(note, 1, RUN)
    message = ask(grid.get_node_ids()[0], data)
    (reply,) = grid.send_and_receive([message])
    assert isinstance(found[0], Array)
    assert found[0].data is data
    assert found[0] is not message.content["arrays"]["x"]
    assert reply.content["arrays"]["x"].data is data


@pytest.mark.parametrize(("nodes", "identities"), [(0, None), (2, ["a"]), (2, ["a", "a"])])
def test_a_node_needs_an_identity_of_its_own(nodes: int, identities: list[str] | None) -> None:
    with pytest.raises(ConfigError, match="different identities"):
        InProcessGrid(echo, nodes, RUN, identities=identities)


def test_closing_forgets_what_waits() -> None:
    grid = InProcessGrid(echo, 1, RUN)
    ids = grid.push_messages([grid.create_message(content(), "train", grid.get_node_ids()[0], "")])
    grid.close()
    assert grid.pull_messages(ids) == []
