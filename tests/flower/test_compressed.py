"""Flower strategies that exist already, compressed: what they see, what they learn, what travels."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apps_support import (
    CLIENTS,
    RUN,
    FaultyGrid,
    accuracy,
    asked_by,
    initial,
    make_app,
    parts_in,
    train,
    with_parts,
)

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.mod import Compression, compressed
from client.store import DiskClientStore
from server.grids.in_process import InProcessGrid
from strategies import Compressed
from strategies.transport import UPLINK
from thinwire.errors import ConfigError
from thinwire.flower import error_reply

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip
from flwr.serverapp import Grid  # isort: skip
from flwr.serverapp.strategy import (  # isort: skip
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Result,
    Strategy,
)

TENTH = {"name": "top-k", "fraction": 0.1}
COUNTER = "1.num_batches_tracked"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))


def run(strategy: Strategy, rounds: int, app: ClientApp | None = None, grid: InProcessGrid | None = None) -> Result:
    grid = grid or InProcessGrid(app or make_app(compressed), CLIENTS, RUN)
    return strategy.start(grid, initial(), rounds)


def clients_accuracy(result: Result) -> float:
    return float(result.evaluate_metrics_clientapp[max(result.evaluate_metrics_clientapp)]["accuracy"])  # type: ignore[arg-type]


def test_fedavg_learns_what_it_learns_without_compression_from_a_twelfth_of_the_bytes() -> None:
    plain = run(FedAvg(), 20, make_app())
    strategy = Compressed(FedAvg())
    thin = run(strategy, 20)
    sent = sum(e.uplink_bytes + e.downlink_bytes for e in strategy.exchanges)
    assert sum(e.dense_bytes for e in strategy.exchanges) > 12 * sent  # of 7,618 parameters, 394 go dense
    assert accuracy(plain.arrays) > 0.94
    assert accuracy(thin.arrays) > accuracy(plain.arrays) - 0.02
    assert clients_accuracy(thin) > accuracy(plain.arrays) - 0.03  # of the copies that the clients hold


@pytest.mark.parametrize(
    ("strategy", "least"),
    [
        (FedAdam(eta=0.03, beta_1=0.9, beta_2=0.99), 0.85),
        (FedYogi(eta=0.03, beta_1=0.9, beta_2=0.99), 0.85),
        (FedProx(proximal_mu=0.1), 0.85),
        (FedMedian(), 0.8),
        (Krum(), 0.8),
    ],
)
def test_every_strategy_sees_whole_models_and_learns(strategy: Strategy, least: float) -> None:
    result = run(Compressed(strategy, uplink=TENTH, downlink=TENTH), 15)
    assert accuracy(result.arrays) > least


@pytest.mark.parametrize(
    "strategy",
    [
        FedAdagrad(eta=0.03),
        FedAvgM(server_momentum=0.1),
        FedTrimmedAvg(beta=0.25),
        MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_their_relatives_learn_too(strategy: FedAvg) -> None:
    strategy.fraction_evaluate = 0.0
    assert accuracy(run(Compressed(strategy, uplink=TENTH, downlink=TENTH), 4).arrays) > 0.6


def test_strategies_that_compare_clients_get_an_estimator_that_knows_each_of_them() -> None:
    assert Compressed(Krum()).method == Compressed(FedMedian()).method == {"name": "ef21"}
    assert Compressed(FedAvg()).method == Compressed(FedAdam()).method == {"name": "ef14"}
    assert Compressed(Krum(), method="ef14").method == {"name": "ef14"}


def test_without_compression_it_is_the_wrapped_strategy() -> None:
    plain = run(FedAvg(), 3, make_app())
    same = run(Compressed(FedAvg(), uplink="identity", downlink="identity"), 3)
    assert list(same.arrays) == list(plain.arrays)
    for name, array in plain.arrays.items():
        found = same.arrays[name].numpy()
        assert found.dtype == array.numpy().dtype
        np.testing.assert_allclose(found, array.numpy(), rtol=0, atol=2e-6)  # x - (x - y) rounds, y does not
    assert dict(same.evaluate_metrics_clientapp[3]) == pytest.approx(dict(plain.evaluate_metrics_clientapp[3]))


def test_counters_and_statistics_arrive_exactly() -> None:
    seen: list[Any] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            seen.append([{n: a.numpy() for n, a in m.content["arrays"].items()} for m in replies])
            return super().aggregate_train(server_round, replies)

    result = run(Compressed(Watching()), 2)
    plain = run(FedAvg(), 1, make_app())
    for arrays in seen[0]:
        assert arrays[COUNTER] == 10
        assert arrays[COUNTER].dtype == np.int64
        assert arrays[COUNTER].shape == ()
    mean = np.mean([arrays["1.running_var"] for arrays in seen[0]], axis=0)
    np.testing.assert_allclose(mean, plain.arrays["1.running_var"].numpy(), rtol=0.05)
    assert result.arrays[COUNTER].numpy() == 20
    assert result.evaluate_metrics_clientapp[2]["tracked"] == 20


def test_bytes_of_a_round_are_in_its_metrics_beside_the_apps_own() -> None:
    strategy = Compressed(FedAvg())
    result = run(strategy, 2)
    trained = [e for e in strategy.exchanges if e.kind == "train"]
    assert [e.kind for e in strategy.exchanges] == ["train", "evaluate"] * 2
    for number, exchange in enumerate(trained, 1):
        metrics = result.train_metrics_clientapp[number]
        assert metrics["uplink-bytes"] == exchange.uplink_bytes > 0
        assert metrics["downlink-bytes"] == exchange.downlink_bytes > 0
        assert metrics["dense-bytes"] == exchange.dense_bytes
        assert len(metrics["losses"]) == 2  # type: ignore[arg-type]
    assert str(trained[0]).startswith("train: 4 of 4 clients answered")


def test_a_round_that_trains_nobody_has_no_bytes() -> None:
    class EverySecond(FedAvg):
        def configure_train(self, server_round: int, *args: Any) -> Any:
            return super().configure_train(server_round, *args) if server_round % 2 else []

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies) if server_round % 2 else (None, None)

    strategy = Compressed(EverySecond(fraction_evaluate=0))
    result = run(strategy, 3)
    assert sorted(result.train_metrics_clientapp) == [1, 3]
    sent = [result.train_metrics_clientapp[number]["uplink-bytes"] for number in (1, 3)]
    assert sent == [exchange.uplink_bytes for exchange in strategy.exchanges]


def test_bytes_are_the_lengths_of_what_is_sent() -> None:
    counted = 0

    def count(reply: Message) -> Message:
        nonlocal counted
        if reply.content.array_records:
            counted += sum(len(part) for part in parts_in(reply)[1].values())
        return reply

    strategy = Compressed(FedAvg())
    run(strategy, 2, grid=FaultyGrid(make_app(compressed), count))
    assert sum(e.uplink_bytes for e in strategy.exchanges) == counted


@pytest.mark.parametrize("downlink", [TENTH, "natural", {"name": "natural", "channel": "direct"}])
def test_half_the_clients_a_round_is_enough(downlink: Any) -> None:
    strategy = Compressed(FedAvg(fraction_train=0.5, min_train_nodes=1), uplink=TENTH, downlink=downlink)
    result = run(strategy, 15)
    assert {e.asked for e in strategy.exchanges if e.kind == "train"} == {2}
    assert accuracy(result.arrays) > 0.85


def test_a_quantiser_is_sent_afresh_where_clients_seldom_come_back() -> None:
    assert Compressed(FedAvg(fraction_train=0.05), downlink="natural").downlink["channel"] == "direct"
    assert "channel" not in Compressed(FedAvg(fraction_train=0.5), downlink="natural").downlink
    assert "channel" not in Compressed(FedAvg(fraction_train=0.05), downlink=TENTH).downlink


@pytest.mark.parametrize("method", ["ef14", "ef21"])
def test_lost_replies_cost_their_round_and_nothing_else(method: str) -> None:
    seen = 0

    def lose(reply: Message) -> Message:
        """Every fifth one, as Flower reports a node that is gone."""
        nonlocal seen
        seen += 1
        return reply if seen % 5 else error_reply(asked_by(reply), 5, "Node Unavailable")

    strategy = Compressed(FedAvg(), uplink=TENTH, downlink=TENTH, method=method)
    result = run(strategy, 15, grid=FaultyGrid(make_app(compressed), lose))
    assert sum(e.asked - e.replied for e in strategy.exchanges) == seen // 5
    assert accuracy(result.arrays) > 0.85


def test_hostile_bytes_are_a_failed_reply_with_its_reason_and_the_others_train_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reasons: list[str] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            reasons.extend(m.error.reason for m in replies if m.has_error())
            return super().aggregate_train(server_round, replies)

    def corrupt(reply: Message) -> Message:
        if reply.metadata.src_node_id != villain or not reply.content.array_records:
            return reply
        _, parts = parts_in(reply)
        return with_parts(reply, {**parts, UPLINK: parts[UPLINK][:-3] + b"\xff\xff\xff"} if UPLINK in parts else parts)

    grid = FaultyGrid(make_app(compressed), corrupt)
    villain = grid.get_node_ids()[2]
    strategy = Compressed(Watching(), uplink=TENTH, downlink=TENTH)
    result = run(strategy, 10, grid=grid)
    assert len(reasons) == 10
    assert all("digest" in reason for reason in reasons)
    assert f"node {villain} is refused" in caplog.text
    assert {e.replied for e in strategy.exchanges if e.kind == "train"} == {3}
    assert accuracy(result.arrays) > 0.8


def test_an_app_without_the_mod_is_told_what_it_lacks() -> None:
    reasons: list[str] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            reasons.extend(m.error.reason for m in replies if m.has_error())
            return super().aggregate_train(server_round, replies)

    def echo(message: Message, context: Context) -> Message:
        arrays = ArrayRecord({"x": Array(np.zeros(2, np.float32))})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    app = ClientApp()
    app.train()(echo)
    app.evaluate()(echo)
    result = run(Compressed(Watching(), downlink="identity"), 1, app)
    assert len(result.arrays) == 0
    assert reasons
    assert all("client.mod.compressed" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (lambda arrays: {}, r"it holds 'arrays', where array '0\.weight' of \(96, 64\) is missing"),
        (lambda arrays: {**arrays, "0.bias": np.ones(3)}, r"where array '0\.bias' of \(96,\) is .* of another shape"),
        (lambda arrays: {**arrays, "more": np.ones(3)}, r"with array 'more' beside the model's"),
    ],
    ids=["parts missing", "another shape", "one more"],
)
def test_an_app_that_answers_with_another_model_is_told_where_it_differs(change: Any, held: str) -> None:
    reasons: list[str] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            reasons.extend(m.error.reason for m in replies)
            return None, None

    def other(message: Message, context: Context) -> Message:
        arrays = change({name: array.numpy() for name, array in message.content["arrays"].items()})
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        return Message(RecordDict({"arrays": record}), reply_to=message)

    app = ClientApp(mods=[compressed])
    app.train()(other)
    run(Compressed(Watching(fraction_evaluate=0)), 1, app)
    assert len(reasons) == CLIENTS
    assert all(re.search(held, reason) for reason in reasons), reasons


def test_an_app_with_the_mod_serves_a_server_without_compression() -> None:
    with_mod, without = run(FedAvg(), 1), run(FedAvg(), 1, make_app())
    for name, array in without.arrays.items():
        assert (with_mod.arrays[name].numpy() == array.numpy()).all()


def test_an_error_of_the_app_is_the_strategys_to_see_and_moves_no_state(tmp_path: Path) -> None:
    calls = 0

    def failing(message: Message, context: Context) -> Message:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise RuntimeError("out of memory")
        return train(message, context)

    app = ClientApp(mods=[compressed])
    app.train()(failing)
    strategy = Compressed(FedAvg(fraction_evaluate=0), uplink=TENTH, downlink=TENTH)
    run(strategy, 3, app)
    assert [e.replied for e in strategy.exchanges] == [4, 3, 4]


def test_records_beside_the_model_pass_through_untouched() -> None:
    configs: list[dict[str, Any]] = []

    def noting(message: Message, context: Context) -> Message:
        configs.append(dict(message.content["config"]))
        assert list(message.content) == ["arrays", "config"]
        reply = train(message, context)
        reply.content["notes"] = ConfigRecord({"text": "hello", "bytes": b"\0\1"})
        return reply

    notes: list[Any] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            notes.extend(dict(m.content["notes"]) for m in replies)
            return super().aggregate_train(server_round, replies)

    app = ClientApp(mods=[compressed])
    app.train()(noting)
    grid = InProcessGrid(app, CLIENTS, RUN)
    Compressed(Watching(fraction_evaluate=0)).start(grid, initial(), 1, train_config=ConfigRecord({"lr": 0.5}))
    assert configs == [{"lr": 0.5, "server-round": 1}] * CLIENTS
    assert notes == [{"text": "hello", "bytes": b"\0\1"}] * CLIENTS


def test_a_strategy_with_a_start_of_its_own_keeps_it() -> None:
    class Own(FedAvg):
        def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
            self.mine = True
            return super().start(grid, initial_arrays, *args, **kwargs)

    own = Own()
    strategy = Compressed(own)
    result = run(strategy, 2)
    assert own.mine
    assert result.train_metrics_clientapp[2]["uplink-bytes"] == strategy.exchanges[2].uplink_bytes


def test_differential_privacy_goes_inside_and_the_other_way_round_is_refused() -> None:
    clipped = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(), noise_multiplier=0.0, clipping_norm=100.0, num_sampled_clients=CLIENTS
    )
    assert accuracy(run(Compressed(clipped, uplink=TENTH, downlink=TENTH), 8).arrays) > 0.6
    outside = DifferentialPrivacyServerSideFixedClipping(
        Compressed(FedAvg()), noise_multiplier=0.0, clipping_norm=100.0, num_sampled_clients=CLIENTS
    )
    with pytest.raises(ConfigError, match="outermost"):
        run(outside, 1)


class Polled(Grid):
    """A grid that cannot wait, as Flower's own: the first reply comes with the second look."""

    def __init__(self, grid: InProcessGrid, lost: int) -> None:
        self._grid, self._lost, self._looked = grid, lost, 0
        self.pushed: list[Message] = []

    run = property(lambda self: self._grid.run)

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Any:
        return self._grid.get_node_ids()

    def push_messages(self, messages: Any) -> Any:
        self.pushed = messages
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Any) -> list[Message]:
        self._looked += 1
        if self._looked % 2:
            return []
        kept = [name for name in message_ids if not self._lost or self._looked > self._lost]
        return self._grid.pull_messages(kept)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        raise AssertionError("the compressed grid waits itself")


def test_a_grid_that_is_polled_gives_the_same_model() -> None:
    expected = run(Compressed(FedAvg(fraction_evaluate=0)), 2)
    polled = Polled(InProcessGrid(make_app(compressed), CLIENTS, RUN), 0)
    result = Compressed(FedAvg(fraction_evaluate=0)).start(polled, initial(), 2)
    for name, array in expected.arrays.items():
        assert (result.arrays[name].numpy() == array.numpy()).all()


def test_replies_that_do_not_come_in_time_are_closed_and_the_next_round_goes_on() -> None:
    polled = Polled(InProcessGrid(make_app(compressed), CLIENTS, RUN), 3)
    strategy = Compressed(FedAvg(fraction_evaluate=0))
    thin = strategy.grid(polled)
    ids = thin.get_node_ids()

    def messages() -> list[Message]:
        record = RecordDict({"arrays": initial(), "config": ConfigRecord()})
        return [thin.create_message(record, "train", node, "") for node in ids]

    assert thin.send_and_receive(messages(), timeout=0) == []
    assert len(thin.send_and_receive(messages(), timeout=60)) == CLIENTS
    assert 59 < max(message.metadata.ttl for message in polled.pushed) <= 60  # nobody works for a round that is over
    assert [(e.asked, e.replied) for e in strategy.exchanges] == [(4, 0), (4, 4)]


def test_a_loop_of_ones_own_pushes_and_pulls_through_the_grid() -> None:
    strategy = Compressed(FedAvg())
    thin = strategy.grid(InProcessGrid(make_app(compressed), CLIENTS, RUN))
    record = RecordDict({"arrays": initial(), "config": ConfigRecord()})
    names = thin.push_messages([thin.create_message(record, "train", node, "") for node in thin.get_node_ids()])
    replies = thin.pull_messages(names)
    assert {reply.metadata.reply_to_message_id for reply in replies} == set(names)
    assert {reply.metadata.src_node_id for reply in replies} == set(thin.get_node_ids())
    for reply in replies:
        assert torch.isfinite(reply.content["arrays"].to_torch_state_dict()["0.weight"]).all()


def test_a_reply_to_a_message_that_was_given_up_is_an_error() -> None:
    strategy = Compressed(FedAvg())
    grid = InProcessGrid(make_app(compressed), CLIENTS, RUN)
    thin = strategy.grid(grid)
    record = RecordDict({"arrays": initial(), "config": ConfigRecord()})
    node = thin.get_node_ids()[0]
    (name,) = thin.push_messages([thin.create_message(record, "train", node, "", ttl=0.0)])
    thin.push_messages([thin.create_message(RecordDict(), "query", node, "")])  # looks at what has expired
    assert [reply.error.reason for reply in thin.pull_messages([name]) if reply.has_error()] == []
    (other,) = thin.push_messages([thin.create_message(record, "train", node, "")])
    thin._open.clear()  # as if it had expired on a grid that cannot forget
    (reply,) = thin.pull_messages([other])
    assert reply.error.reason == "it came too late"


def test_the_record_that_is_named_is_compressed_and_one_that_is_not_there_is_refused() -> None:
    def reply(record: str) -> Message:
        thin = Compressed(FedAvg(), record=record).grid(InProcessGrid(make_app(compressed), CLIENTS, RUN))
        content = RecordDict({"other": ArrayRecord({"x": Array(np.ones(3))}), "arrays": initial()})
        names = thin.push_messages([thin.create_message(content, "train", thin.get_node_ids()[0], "")])
        return thin.pull_messages(names)[0]

    assert list(reply("arrays").content["arrays"]) == list(initial())
    assert reply("other").has_error()  # the app's reply has no such model
    with pytest.raises(ConfigError, match="no record 'weights' in the first message; it has other, arrays"):
        reply("weights")


def test_flowers_old_strategies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"object is no strategy of flwr\.serverapp\.strategy"):
        Compressed(object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"FedAvg is a class; give an instance: Compressed\(FedAvg\(\.\.\.\)\)"):
        Compressed(FedAvg)  # type: ignore[arg-type]


def test_clients_keep_their_state_on_disk_by_run_and_name(tmp_path: Path) -> None:
    run(Compressed(FedAvg()), 1)
    (folder,) = (tmp_path / "thinwire-clients" / "apps").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [f"client-{index}" for index in range(CLIENTS)]
    store = DiskClientStore(folder.parent, folder.name, "client-0")
    assert store.read("pending") is not None
    assert store.read("replica") is not None


def test_what_clients_left_in_old_runs_is_deleted_when_they_join_another(tmp_path: Path) -> None:
    def folders() -> set[str]:
        return {path.name for path in (tmp_path / "thinwire-clients" / "apps").iterdir()}

    run(Compressed(FedAvg(fraction_evaluate=0)), 1)
    first = folders()
    run(Compressed(FedAvg(fraction_evaluate=0)), 1)
    assert first < folders()
    run(Compressed(FedAvg(fraction_evaluate=0)), 1, make_app(Compression(keep_days=0)))
    assert len(folders()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uplink": "top-q"}, "unknown compressor 'top-q'; did you mean 'top-k'"),
        ({"uplink": {"fraction": 0.1}}, "{'fraction': 0.1} names nothing; write 'top-k', or"),
        ({"downlink": None}, "None names nothing"),
        ({"method": "ef22"}, "unknown method 'ef22'; did you mean 'ef21'"),
        ({"method": "dcgd", "uplink": "top-k"}, "unbiased"),
        ({"downlink": {"name": "top-k", "share": 0.1}}, "unknown key 'downlink.share'"),
        ({"method": "masha1", "uplink": "natural", "downlink": "natural"}, "decides rounds itself"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compressed(FedAvg(), **options)


def test_strategies_without_flower_are_imported_without_it() -> None:
    code = "import strategies, strategies.ef21, strategies.builder, sys; assert 'flwr' not in sys.modules"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
