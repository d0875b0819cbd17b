"""What Prometheus scrapes of a client: where its time went, what it sent, what its compressor dropped."""

import pytest
from monitoring_support import Scrape

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.desk import Desk
from client.metrics import PHASES, ClientMetrics
from client.participant import Answered, Spent
from client.store import MemoryClientStore
from client.workshop import Workshops
from strategies.transport import HELLO, MESSAGE, ROUND
from thinwire.cli.simulation import _open
from thinwire.errors import WireError
from thinwire.prometheus import Endpoint
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import PROTOCOL, REASON_DECLINED, HelloRequest, RoundReply, new_run

from server.grids.in_process import InProcessGrid  # isort: skip
from client.app import respond  # isort: skip


def scraped(metrics: ClientMetrics) -> Scrape:
    with Endpoint("127.0.0.1:0", metrics.registry) as endpoint:
        return Scrape(endpoint.address)


def test_a_client_of_a_run_is_scraped_as_it_worked() -> None:
    task = {"name": "digits", "hidden": [8]}
    config = RunConfig.of({"rounds": 3, "clients": 2, "participation": {"fraction": 1.0}, "task": task})
    model, strategy = _open(config, "cpu")
    workshops, watched, desks = Workshops({}, "cpu"), ClientMetrics("one", lambda: 3), {}

    def answer(message, context):
        name = str(context.node_config["client-id"])
        if name not in desks:
            store = MemoryClientStore()
            desks[name] = Desk(name, "", workshops.open, lambda run: store, watch=None if desks else watched)
        return respond(desks[name], message)

    grid = InProcessGrid(answer, config.clients, run_id=1)
    strategy.of_run(new_run(), strategy._store).start(grid, model.initial_arrays(), evaluate_fn=model.evaluate_fn())
    rows = [fields for kind, fields in strategy._store.records if kind == "round"]
    (roster,) = [fields["clients"] for kind, fields in strategy._store.records if kind == "roster"]
    index = str([client["name"] for client in roster].index(next(iter(desks))))
    scrape = scraped(watched)
    assert scrape("thinwire_client_rounds_total") == scrape("thinwire_client_round") == 3
    assert scrape("thinwire_client_repeats_total") == 0
    assert scrape("thinwire_client_bytes_total", direction="up") >= sum(row["client_bytes"][index][0] for row in rows)
    assert scrape("thinwire_client_bytes_total", direction="down") > 0
    assert scrape("thinwire_client_dials_total") == 3
    assert 0 < scrape("thinwire_client_compression_error") < 1
    assert scrape("thinwire_client_train_loss") > 0
    assert scrape.labels("phase") == set(PHASES)
    assert scrape("thinwire_client_seconds_total", phase="training") > 0
    assert scrape("thinwire_client_seconds_total", phase="compression") > 0
    assert scrape.sum("thinwire_client_seconds_total") > sum(row["client_seconds"][index] for row in rows) / 2
    assert scrape.families["thinwire_client_info"].samples[0].labels["client"] == "one"
    assert scrape("process_resident_memory_bytes") > 1e6


def test_every_second_has_one_phase() -> None:
    metrics = ClientMetrics("one")
    before = scraped(metrics).sum("thinwire_client_seconds_total")
    assert before == 0
    metrics.asked(ROUND, 100)
    metrics.computed(Answered(RoundReply(round=4), spent=Spent(0.0, 0.0)))
    metrics.replied(ROUND, 50)
    metrics.asked(HELLO, 10)
    metrics.replied(HELLO, 10)
    scrape = scraped(metrics)
    assert scrape("thinwire_client_round") == 4
    assert scrape("thinwire_client_bytes_total", direction="down") == 110
    assert scrape("thinwire_client_bytes_total", direction="up") == 60
    assert scrape("thinwire_client_seconds_total", phase="waiting") > 0
    assert scrape("thinwire_client_seconds_total", phase="other") > 0


def test_what_was_not_computed_is_counted_apart() -> None:
    metrics = ClientMetrics("one")
    metrics.computed(Answered(RoundReply(round=2)))
    metrics.computed(Answered(RoundReply(round=3, reason=REASON_DECLINED, detail="a non-finite value")))
    scrape = scraped(metrics)
    assert scrape("thinwire_client_rounds_total") == 0
    assert scrape("thinwire_client_repeats_total") == 1
    assert scrape("thinwire_client_lacks_total", reason="declined") == 1


def test_a_message_that_is_nonsense_is_refused_as_ever_and_its_time_is_accounted_for() -> None:
    metrics = ClientMetrics("one")
    desk = Desk("one", "", Workshops({}, "cpu").open, lambda run: MemoryClientStore(), watch=metrics)
    with pytest.raises(WireError):
        desk.answer("nonsense", {MESSAGE: b"12345"})
    hello = HelloRequest(protocol=PROTOCOL, run=new_run()).SerializeToString()
    reply = desk.answer(HELLO, {MESSAGE: hello})
    scrape = scraped(metrics)
    assert scrape("thinwire_client_bytes_total", direction="down") == 5 + len(hello)
    assert scrape("thinwire_client_bytes_total", direction="up") == sum(map(len, reply.values()))
