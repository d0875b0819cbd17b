"""Dashboard, alerts and compose file speak of metrics, labels and ports that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring_support import Scrape, a_roster, a_row

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.metrics import ClientMetrics
from client.participant import Answered, Spent
from server.metrics import ServerMetrics
from strategies.transport import ROUND
from thinwire.prometheus import Endpoint
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import REASON_DECLINED, RoundReply

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docker" / "monitoring"
GRAFANA = FOLDER / "grafana"
BOARD = json.loads((GRAFANA / "dashboards" / "thinwire.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in ALERTS]
WORDS = {"sum", "avg", "rate", "increase", "histogram_quantile", "topk", "by", "and", "or", "time", "abs", "Inf"}
SCRAPERS = {"job", "instance"}  # labels that Prometheus itself adds
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every sample that our endpoints export, with its labels."""
    server, client = ServerMetrics(RunConfig.of({}), lambda: ["c0"]), ClientMetrics("c0")
    server.record("roster", a_roster(3))
    server.record("fleet-refused", {"client": "eve"})
    server.record("round", a_row(1))
    client.asked(ROUND, 1)
    client.computed(Answered(RoundReply(round=1, reason=REASON_DECLINED)))
    client.computed(Answered(RoundReply(round=1), spent=Spent(0.1, 0.1)))
    client.replied(ROUND, 1)
    found: dict[str, set[str]] = {"up": set(), "thinwire_client_gpu_memory_bytes": {"kind"}}  # the latter with a GPU
    for metrics in (server, client):
        with Endpoint("127.0.0.1:0", metrics.registry) as endpoint:
            for name, labels in Scrape(endpoint.address).samples:
                found.setdefault(name, set()).update(label for label, _ in labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that its braces name."""
    plain = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)|\$__\w+|\b\d+[smhd]\b", " ", expression)
    for name, braces in re.findall(r"\b([a-zA-Z_]\w*)\s*(\{[^}]*\})?", re.sub(r'"[^"]*"', '""', plain)):
        if name not in WORDS and not re.search(rf"\{{[^}}]*\b{name}\b[^}}]*\}}", plain):
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_names_metrics_and_labels_that_are_exported(
    expression: str, exported: dict[str, set[str]]
) -> None:
    found = list(selectors(expression))
    assert found, expression
    for name, labels in found:
        assert name in exported, name
        assert labels <= exported[name] | SCRAPERS, (name, labels)
    grouped = {label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= set().union(*(exported[name] for name, _ in found)) | SCRAPERS
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_legend_names_a_label_that_is_left(panel: dict[str, Any], exported: dict[str, set[str]]) -> None:
    for target in panel["targets"]:
        (name, _), *_ = selectors(target["expr"])
        wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = re.search(r"\bby\s*\(([^)]*)\)", target["expr"])
        left = set(grouped[1].replace(" ", "").split(",")) if grouped else exported[name] | SCRAPERS
        assert wanted <= left, target


def test_the_checks_see_what_is_wrong(exported: dict[str, set[str]]) -> None:
    wrong = 'sum by (le) (rate(thinwire_no_such_total{kind="x", nothing!~"y"}[5m])) > 0.5'
    assert list(selectors(wrong)) == [("thinwire_no_such_total", {"kind", "nothing"})]
    assert "thinwire_no_such_total" not in exported


def test_every_family_of_ours_is_drawn_or_is_known_not_to_be(exported: dict[str, set[str]]) -> None:
    drawn = {name for expression in EXPRESSIONS for name, _ in selectors(expression)}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported if name.startswith("thinwire_")}
    undrawn = ours - {re.sub(r"_bucket$", "", name) for name in drawn}
    assert undrawn == {
        "thinwire_run_info",
        "thinwire_rounds_total",
        "thinwire_questions_total",  # asked, as the answers tell too
        "thinwire_roster_connected",
        "thinwire_client_info",
        "thinwire_client_rounds_total",
        "thinwire_client_round",
        "thinwire_client_bytes_total",
        "thinwire_client_train_loss",
        "thinwire_client_last_question_timestamp_seconds",
    }


def test_panels_lie_side_by_side_on_the_data_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in PANELS:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_prometheus_scrapes_the_ports_that_compose_opens_inside_its_network_only() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    services = COMPOSE["services"]
    assert jobs["thinwire-server"]["static_configs"] == [{"targets": ["server:9100"]}]
    assert "--metrics=0.0.0.0:9100" in services["server"]["command"]
    (clients,) = jobs["thinwire-client"]["dns_sd_configs"]
    for name in clients["names"]:
        assert f"--metrics=0.0.0.0:{clients['port']}" in services[name]["command"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(published) == ["${PORT:-8500}:8500", "127.0.0.1:${GRAFANA_PORT:-3000}:3000"]


def test_monitoring_is_a_profile_of_pinned_images_with_files_that_are_there() -> None:
    monitoring = {n: s for n, s in COMPOSE["services"].items() if s.get("profiles") == ["monitoring"]}
    assert set(monitoring) == {"prometheus", "grafana"}
    for service in monitoring.values():
        assert re.search(r":v?\d+\.\d+\.\d+\}$", service["image"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "thinwire.yml").read_text())["providers"]
    assert (
        f"./docker/monitoring/grafana/dashboards:{provider['options']['path']}:ro" in monitoring["grafana"]["volumes"]
    )
    assert monitoring["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Prometheus")
def test_promtool_parses_the_rules_and_every_expression(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    spans = {"$__rate_interval": "1m", "$__range": "1h"}
    plain = [re.sub(r"\$__\w+", lambda match: spans[match[0]], expression) for expression in EXPRESSIONS]
    rules = [{"record": f"thinwire:expression_{number}", "expr": expr} for number, expr in enumerate(plain)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": rules}]}))
    for words in (["check", "rules", str(file)], ["check", "config", str(FOLDER / "prometheus.yml")]):
        ended = subprocess.run([PROMTOOL, *words], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
