"""What every grid promises, on each of them."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fleet_support import RUN, ask, clients, content, data_of, echo, fleet
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from server.grids.fleet import FleetGrid
from server.grids.in_process import InProcessGrid
from thinwire.errors import ConfigError, RoundError
from thinwire.flower import APP_RAISED, NODE_UNAVAILABLE, Run, node_id

AnyGrid = FleetGrid | InProcessGrid
MakeGrid = Callable[..., AnyGrid]
NAMES = ["client-0", "client-1", "client-2"]


@pytest.fixture(params=["fleet", "in-process"])
def make_grid(request: pytest.FixtureRequest) -> Iterator[MakeGrid]:
    """A function from an app to a grid with three clients that run it."""
    opened = []

    def make(app: Callable[[Message, Context], Message]) -> AnyGrid:
        if request.param == "in-process":
            return InProcessGrid(app, 3, RUN)
        grid_context = fleet()
        grid = grid_context.__enter__()
        opened.append(grid_context)
        for index, name in enumerate(NAMES):
            config = {"partition-id": index, "num-partitions": 3, "client-id": name}
            client = clients(grid.address, name, app=app, node_config=config)
            client.__enter__()
            opened.append(client)
        grid.wait_for_nodes(3, 10)
        return grid

    yield make
    for one in reversed(opened):
        one.__exit__(None, None, None)


def flower_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"].to_numpy_ndarrays()
        share = int(context.node_config["partition-id"]) + 1
        calls = context.state.setdefault("calls", MetricRecord({"count": 0}))
        calls["count"] += 1
        moved = ArrayRecord([array + share * calls["count"] for array in arrays])
        metrics = MetricRecord({"num-examples": 2**share, "calls": calls["count"]})
        return Message(RecordDict({"arrays": moved, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        total = float(message.content["arrays"].to_numpy_ndarrays()[0].sum())
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "total": total})}), reply_to=message)

    return app


def test_plain_fedavg_runs(make_grid: MakeGrid) -> None:
    grid = make_grid(flower_app())
    result = FedAvg(min_available_nodes=3).start(
        grid=grid, initial_arrays=ArrayRecord([np.zeros((2, 3), np.float64), np.zeros(1)]), num_rounds=3, timeout=30
    )
    # Weights 2, 4, 8 of 14; client i moves by i in round 1, 2 i in round 2, 3 i in round 3.
    step = (1 * 2 + 2 * 4 + 3 * 8) / 14
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], np.full((2, 3), 6 * step), rtol=1e-14)
    assert result.train_metrics_clientapp[3]["calls"] == pytest.approx(3)
    assert result.evaluate_metrics_clientapp[3]["total"] == pytest.approx(6 * 6 * step)


def test_nodes_have_the_same_ids_on_every_grid(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    assert sorted(grid.get_node_ids()) == sorted(node_id(RUN, name) for name in NAMES)
    assert {(info.node_id, info.name) for info in grid.get_nodes()} == {(node_id(RUN, name), name) for name in NAMES}
    assert all(0 < node < 1 << 63 for node in grid.get_node_ids())
    assert node_id(RUN, "client-0") != node_id(RUN + 1, "client-0")


def test_replies_are_pulled_once_by_the_id_of_their_request(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    nodes = list(grid.get_node_ids())
    ids = grid.push_messages(ask(node, str(node).encode()) for node in nodes)
    found = {reply.metadata.reply_to_message_id: reply for reply in grid.replies(ids, timeout=10)}
    assert sorted(found) == sorted(ids)
    for message_id, node in zip(ids, nodes, strict=True):
        metadata = found[message_id].metadata
        assert data_of(found[message_id]) == str(node).encode()
        assert (metadata.src_node_id, metadata.run_id, metadata.message_type) == (node, RUN, "train")
    assert list(grid.pull_messages([*ids, "never-sent"])) == []


def test_send_and_receive_answers_several_messages_to_one_node(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    node = next(iter(grid.get_node_ids()))
    replies = list(grid.send_and_receive([ask(node, bytes([i])) for i in range(5)], timeout=10))
    assert [data_of(reply) for reply in replies] == [bytes([i]) for i in range(5)]


def test_an_exception_in_the_app_is_an_error_reply_like_flowers(make_grid: MakeGrid) -> None:
    def fail(message: Message, context: Context) -> Message:
        raise RuntimeError("boom")

    grid = make_grid(fail)
    node = next(iter(grid.get_node_ids()))
    (reply,) = grid.send_and_receive([ask(node)], timeout=10)
    assert reply.error.code == APP_RAISED
    assert reply.error.reason == "<class 'RuntimeError'>:<'boom'>"
    assert reply.metadata.src_node_id == node


def test_a_reply_that_is_no_message_is_an_error_reply(make_grid: MakeGrid) -> None:
    grid = make_grid(lambda message, context: None)  # type: ignore[arg-type, return-value]
    (reply,) = grid.send_and_receive([ask(next(iter(grid.get_node_ids())))], timeout=10)
    assert "NoneType" in str(reply.error.reason)


def test_unknown_and_rejected_nodes_answer_with_an_error_at_once(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    first, second, third = grid.get_node_ids()
    grid.reject(first, "sent nonsense")
    replies = list(grid.send_and_receive([ask(12345), ask(first), ask(second)], timeout=10))
    by_node = {reply.metadata.src_node_id: reply for reply in replies}
    assert by_node[12345].error.code == by_node[first].error.code == NODE_UNAVAILABLE
    assert "sent nonsense" in str(by_node[first].error.reason)
    assert by_node[second].has_content()
    assert sorted(grid.get_node_ids()) == sorted([second, third])


def test_forgotten_messages_have_no_reply(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    node = next(iter(grid.get_node_ids()))
    forgotten, kept = grid.push_messages([ask(node, b"1"), ask(node, b"2")])
    grid.forget_messages([forgotten])
    assert [data_of(reply) for reply in grid.replies([forgotten, kept], timeout=10)] == [b"2"]


def test_the_apps_changes_to_its_records_stay_its_own(make_grid: MakeGrid) -> None:
    def change(message: Message, context: Context) -> Message:
        reply = Message(RecordDict({"seen": message.content["config"]}), reply_to=message)
        message.content["config"]["value"] = 2
        message.content["more"] = ConfigRecord({"a": 1})
        return reply

    grid = make_grid(change)
    records = content()
    records["config"] = ConfigRecord({"value": 1})
    list(grid.send_and_receive([grid.create_message(records, "train", n, "1") for n in grid.get_node_ids()], timeout=9))
    assert records["config"]["value"] == 1
    assert "more" not in records


def test_a_grid_is_flowers_grid_of_one_run(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    assert isinstance(grid, Grid)
    grid.set_run(Run.create_empty(RUN))
    assert grid.run.run_id == RUN
    with pytest.raises(ConfigError, match="not 43"):
        grid.set_run(Run.create_empty(RUN + 1))
    message = grid.create_message(content(), "evaluate", 5, "7", ttl=3.0)
    assert (message.metadata.group_id, message.metadata.ttl, message.metadata.run_id) == ("7", 3.0, RUN)
    assert Message(content(), 5, "query").metadata.run_id == RUN


def test_too_few_nodes_are_a_round_error(make_grid: MakeGrid) -> None:
    grid = make_grid(echo)
    assert len(grid.wait_for_nodes(3, timeout=1)) == 3
    with pytest.raises(RoundError, match="3 of 4"):
        grid.wait_for_nodes(4, timeout=0.05)
