"""What Prometheus scrapes of a server is what the run recorded."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from monitoring_support import Scrape, a_roster, a_row

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from server.grids.in_process import InProcessGrid
from server.metrics import MOST_CLIENTS, MOST_TASK_METRICS, ServerMetrics
from server.run_directory import RunDirectory
from thinwire.cli.monitoring import Monitoring, monitored
from thinwire.cli.simulation import _open, virtual_clients
from thinwire.errors import ConfigError
from thinwire.prometheus import Endpoint
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import new_run

CONFIG = RunConfig.of({"rounds": 7})
UP = ("direction", "up")


@pytest.fixture
def metrics() -> ServerMetrics:
    return ServerMetrics(CONFIG, lambda: ["c1", "c2"])


@pytest.fixture
def endpoint(metrics: ServerMetrics) -> Iterator[Endpoint]:
    with Endpoint("127.0.0.1:0", metrics.registry) as endpoint:
        yield endpoint


def test_rounds_bytes_and_errors_are_those_of_the_rows(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    metrics.record("roster", a_roster(3))
    metrics.record("round", a_row(1))
    metrics.record("round", a_row(2, seconds=50.0, uplink_bytes=1300, downlink_error=0.5))
    scrape = Scrape(endpoint.address)
    assert scrape("thinwire_rounds_total") == 2
    assert (scrape("thinwire_round"), scrape("thinwire_open_round"), scrape("thinwire_planned_rounds")) == (2, 3, 7)
    assert scrape("thinwire_round_seconds_sum") == 52
    assert scrape("thinwire_round_seconds_bucket", le="2.5") == 1
    assert scrape("thinwire_round_seconds_bucket", le="60.0") == 2
    assert scrape("thinwire_answer_seconds_count") == 4
    assert scrape("thinwire_roster_answer_seconds", client="c1") == 1.5
    assert scrape("thinwire_bytes_total", direction="up", client="c1") == 400
    assert scrape("thinwire_bytes_total", direction="down", client="c2") == 600
    assert scrape("thinwire_dense_bytes_total") == 40_000
    assert scrape("thinwire_compression_ratio") == 10  # 20,000 / (1,300 + 700)
    assert scrape("thinwire_compression_error", direction="up") == 0.125
    assert scrape("thinwire_compression_error", direction="down") == 0.5
    assert scrape("thinwire_loss", source="evaluation") == 0.5
    assert scrape("thinwire_loss", source="training") == 0.25
    assert scrape("thinwire_accuracy_ratio", source="evaluation") == 0.75
    assert scrape("thinwire_accuracy_ratio", source="clients") == 0.5
    assert scrape("thinwire_roster_clients") == 3
    assert scrape("thinwire_connected_clients") == 2
    assert scrape("thinwire_roster_connected", client="c0") == 0
    assert scrape("thinwire_roster_connected", client="c1") == 1
    assert scrape.families["thinwire_run_info"].samples[0].labels["method"] == "ef21"


def test_who_did_not_reply_is_late_unless_it_is_known_why(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    metrics.record("roster", a_roster(5))
    metrics.record("client-lacks", {"client": "c0", "round": 1, "detail": "missing replica: at version 0"})
    metrics.record("client-lacks", {"client": "c1", "round": 1, "detail": "declined: a non-finite value"})
    metrics.record("client-error", {"client": "c2", "round": 1, "detail": "no memory"})
    metrics.record("hostile", {"client": "c3", "round": 1, "detail": "bad digest"})
    metrics.record("round", a_row(1, asked=[0, 1, 2, 3, 4], replied=[0]))
    metrics.record("round", a_row(2, asked=[1, 4], replied=[4]))
    scrape = Scrape(endpoint.address)
    outcomes = {"c0": "replied", "c1": "declined", "c2": "failed", "c3": "hostile", "c4": "late"}
    for client, outcome in outcomes.items():
        assert scrape("thinwire_answers_total", client=client, outcome=outcome) == 1
    assert scrape("thinwire_answers_total", client="c1", outcome="late") == 1  # of round 2: nothing is known of it
    assert scrape("thinwire_answers_total", client="c4", outcome="replied") == 1
    assert scrape.sum("thinwire_answers_total") == scrape.sum("thinwire_questions_total") == 7
    assert scrape("thinwire_failures_total", kind="client-lacks") == 2
    assert scrape("thinwire_failures_total", kind="hostile") == 1


def test_events_of_the_operator_and_of_connections_are_seen(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    metrics.record("resumed", {"round": 4, "replayed": 2})
    metrics.record("fleet-opened", {"client": "c1", "detail": ""})
    metrics.record("fleet-closed", {"client": "c1", "detail": ""})
    metrics.record("fleet-refused", {"client": "eve", "detail": "not on the roster"})
    metrics.record("round-repeated", {"round": 5, "attempt": 0, "replies": 0})
    metrics.record("paused", {"by": "me", "round": 4})
    metrics.record("changed", {"by": "me", "round": 4, "keys": {"optimiser.rate": [1.0, 0.5]}})
    assert Scrape(endpoint.address)("thinwire_planned_rounds") == 7
    metrics.record("changed", {"by": "me", "round": 4, "keys": {"rounds": [7, 9]}})
    scrape = Scrape(endpoint.address)
    assert scrape("thinwire_planned_rounds") == 9
    assert (scrape("thinwire_round"), scrape("thinwire_open_round"), scrape("thinwire_paused")) == (4, 5, 1)
    assert scrape("thinwire_connections_total") == 1
    assert scrape("thinwire_failures_total", kind="fleet-refused") == 1
    assert scrape("thinwire_failures_total", kind="round-repeated") == 1
    metrics.record("unpaused", {"by": "me", "round": 4})
    metrics.close()
    scrape = Scrape(endpoint.address)
    assert (scrape("thinwire_paused"), scrape("thinwire_open_round")) == (0, 0)


def test_a_large_roster_has_no_labels_of_its_clients(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    metrics.record("roster", a_roster(MOST_CLIENTS + 1))
    metrics.record("round", a_row(1))
    scrape = Scrape(endpoint.address)
    assert scrape.labels("client") == {"all"}
    assert scrape("thinwire_bytes_total", direction="up", client="all") == 300
    assert scrape("thinwire_connected_clients") == 2


def test_the_limit_of_clients_with_labels_can_be_set() -> None:
    metrics = ServerMetrics(CONFIG, most_clients=2)
    with Endpoint("127.0.0.1:0", metrics.registry) as endpoint:
        metrics.record("roster", a_roster(3))
        metrics.record("round", a_row(1))
        assert Scrape(endpoint.address).labels("client") == {"all"}


def test_clients_that_make_up_metrics_fill_no_memory(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    for number in range(1, 6):
        made_up = {f"metric {number} {place}": 1.0 for place in range(64)}
        metrics.record("round", a_row(number, train={**made_up, "compression_error": 0.5}))
    scrape = Scrape(endpoint.address)
    assert len([1 for name, _ in scrape.samples if name == "thinwire_task_metric"]) == MOST_TASK_METRICS
    assert scrape("thinwire_compression_error", direction="up") == 0.5


def test_two_runs_of_one_process_do_not_mix(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    other = ServerMetrics(RunConfig.of({"rounds": 1}))
    with Endpoint("127.0.0.1:0", other.registry) as another:
        metrics.record("round", a_row(1))
        assert Scrape(endpoint.address)("thinwire_rounds_total") == 1
        assert Scrape(another.address)("thinwire_rounds_total") == 0


def test_names_follow_the_conventions_and_say_what_they_are(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    metrics.record("roster", a_roster(3))
    metrics.record("round", a_row(1))
    families = Scrape(endpoint.address).families
    ours = {name: family for name, family in families.items() if name.startswith("thinwire_")}
    assert len(ours) > 20
    for name, family in ours.items():
        assert family.documentation, name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert (family.type == "histogram") <= name.endswith("_seconds"), name
        assert not name.endswith(("_ms", "_mb", "_percent")), name
    assert "process_resident_memory_bytes" in families
    assert {f"{name}_total" for name, family in ours.items() if family.type == "counter"} == {
        "thinwire_rounds_total",
        "thinwire_bytes_total",
        "thinwire_dense_bytes_total",
        "thinwire_questions_total",
        "thinwire_answers_total",
        "thinwire_failures_total",
        "thinwire_connections_total",
    }


def test_a_run_is_scraped_as_it_was_recorded(tmp_path) -> None:
    task = {"name": "digits", "hidden": [8]}
    config = RunConfig.of({"rounds": 3, "clients": 4, "task": task, "local": {"steps": 2}})
    model, strategy = _open(config, "cpu")
    folder = RunDirectory(tmp_path / "run")
    metrics = ServerMetrics(config)
    folder.observers.add(metrics)
    grid = InProcessGrid(virtual_clients(config, "cpu"), config.clients, run_id=1)
    strategy.of_run(new_run(), metrics.timed(folder)).start(
        grid, model.initial_arrays(), evaluate_fn=model.evaluate_fn()
    )
    rows = folder.rounds()
    with Endpoint("127.0.0.1:0", metrics.registry) as endpoint:
        scrape = Scrape(endpoint.address)
    folder.close()
    assert scrape("thinwire_rounds_total") == len(rows) == 3
    ups = [v for (name, labels), v in scrape.samples.items() if name == "thinwire_bytes_total" and UP in labels]
    assert sum(ups) == sum(row["uplink_bytes"] for row in rows)
    assert scrape("thinwire_journal_seconds_count") == 3
    assert scrape("thinwire_checkpoint_seconds_count") >= 2  # before the first round, and at the end
    assert scrape("thinwire_loss", source="evaluation") == rows[-1]["loss"]
    assert scrape("thinwire_compression_error", direction="up") == rows[-1]["train"]["compression_error"]
    assert 0 < scrape("thinwire_compression_error", direction="down") < 1
    assert scrape("process_resident_memory_bytes") > 1e6


def test_an_address_that_is_taken_or_none_is_told_in_one_line(metrics: ServerMetrics, endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError, match=f"cannot serve metrics on {endpoint.address}"):
        Endpoint(endpoint.address, metrics.registry)
    for bad in ("", "here", "127.0.0.1:http", "127.0.0.1:99999999"):
        with pytest.raises(ConfigError):
            Endpoint(bad, metrics.registry)


def test_a_port_alone_is_on_this_machine_and_is_free_again_afterwards(metrics: ServerMetrics) -> None:
    with Endpoint("0", metrics.registry) as endpoint:
        host, _, port = endpoint.address.rpartition(":")
        assert host == "127.0.0.1"
    endpoint.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{endpoint.address}/metrics", timeout=5)
    with socket.socket() as probe:
        probe.bind((host, int(port)))


def test_a_run_that_nobody_scrapes_opens_no_port(tmp_path) -> None:
    folder = RunDirectory(tmp_path)
    with monitored(Monitoring(), CONFIG, folder) as store:
        assert store is folder
    folder.close()
