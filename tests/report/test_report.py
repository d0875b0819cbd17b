"""thinwire report: one file, complete, small, and safe whatever peers call themselves."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from report_kit import ENDS_SCRIPT, HOSTILE, made_up, options, record_run

from thinwire.cli.drawing import report
from thinwire.cli.options import run_options
from thinwire.cli.page_clients import MOST_CLIENTS
from thinwire.cli.page_curves import curves, thinned
from thinwire.cli.page_events import MOST_EVENTS, events
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.report_page import page
from thinwire.cli.reproducing import commands, spelled_out
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig

MEGABYTE = 1_000_000


class Elements(HTMLParser):
    """What a browser's parser makes of a page: elements with attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def data_of(text: str) -> Any:
    return json.loads(Elements(text).scripts[0])


def read_page(path: Path, *others: Path, **targets: float) -> str:
    return page(RecordedRun.read(path), [RecordedRun.read(other, events=False) for other in others], targets)


def hostile(path: Path) -> Path:
    names = {0: HOSTILE, 1: ENDS_SCRIPT, 2: "\u2028'\"`$title${data}", 3: "--help", 4: "a b;rm -rf ~"}
    more = {"hostile": {"client": HOSTILE, "round": 3, "detail": ENDS_SCRIPT}, HOSTILE: {"detail": "&lt;b&gt;"}}
    return record_run(path, names=names, more=more, task={"name": "digits"})


def test_the_command_writes_one_file_and_says_how_large_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record_run(tmp_path / "run", rounds=3)
    record_run(run / "fedavg", rounds=3, method={"name": "fedavg"}, uplink="identity", downlink="identity")
    report([run], out=None, compare=None, target=None, json_=True)
    told = json.loads(capsys.readouterr().out)
    written = run / "report.html"
    assert told["files"] == [{"path": str(written), "bytes": written.stat().st_size}]
    assert told["compared"] == [str(run / "fedavg")], "the dense yardstick of a simulation is compared with it"
    assert [one["label"] for one in data_of(written.read_text())["runs"]] == [
        "ef21: top-k both ways",
        "fedavg: dense both ways",
    ]


def test_runs_named_after_the_first_are_compared_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [record_run(tmp_path / name, rounds=2, seed=seed) for seed, name in enumerate("abc")]
    report(runs[:2], out=tmp_path / "pages" / "page.html", compare=runs[2:], target=["loss=0.5"], json_=True)
    told = json.loads(capsys.readouterr().out)
    assert told["compared"] == [str(runs[1]), str(runs[2])]
    text = (tmp_path / "pages" / "page.html").read_text()
    assert [one["label"] for one in data_of(text)["runs"]] == ["ef21, seed 0", "ef21, seed 1", "ef21, seed 2"]
    assert "not reached" in text


def test_the_same_record_gives_the_same_page(tmp_path: Path) -> None:
    run = record_run(tmp_path / "run", rounds=4)
    assert read_page(run) == read_page(run)


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    for rounds in (0, 1):
        text = read_page(record_run(tmp_path / f"run{rounds}", rounds=rounds, over=False))
        assert f"round {rounds} of 40" in text


def test_nothing_of_the_page_comes_from_elsewhere(tmp_path: Path) -> None:
    text = read_page(hostile(tmp_path / "run"))
    elements = Elements(text)
    allowed = {"a": "#", "link": "data:,"}
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(allowed[tag]), f"<{tag} {name}={value}>"
    assert "@import" not in text
    assert "url(" not in text
    assert [tag for tag, _ in elements.found].count("script") == 2, "the data and the page's own"
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_and_texts_of_peers_become_neither_elements_nor_script(tmp_path: Path) -> None:
    plain, attacked = record_run(tmp_path / "plain"), hostile(tmp_path / "hostile")
    tags = {name: [tag for tag, _ in Elements(read_page(path)).found] for name, path in (("p", plain), ("h", attacked))}
    assert set(tags["p"]) == set(tags["h"])
    assert "img" not in tags["h"]
    text = read_page(attacked)
    found = data_of(text)
    assert found["clients"]["name"][:3] == [HOSTILE, ENDS_SCRIPT, "\u2028'\"`$title${data}"]
    assert HOSTILE in found["events"]["kinds"]
    assert HOSTILE not in text
    assert "</script><script>" not in text


def test_a_peers_name_is_no_part_of_a_command_unless_it_is_a_plain_word(tmp_path: Path) -> None:
    path = hostile(tmp_path / "run")
    run = RecordedRun.read(path)
    served = RecordedRun(run.path, _with_server(run.info), run.rows, run.events)
    lines = dict(commands(served))["Its clients, each where its data is"].splitlines()
    assert [shlex.split(line)[-1] for line in lines[:4]] == ["NAME"] * 4
    assert "rm -rf" not in "".join(lines)


def _with_server(info: Any) -> Any:
    import dataclasses

    return dataclasses.replace(info, config={**info.config, "server": {"address": "127.0.0.1:8500"}})


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"seed": 3, "rounds": 7, "participation": {"fraction": 0.25}},
        {"uplink": {"name": "qsgd"}, "method": {"name": "fedavg"}, "downlink": {"name": "identity"}},
        {"task": {"name": "digits", "hidden": [8, 8]}, "local": {"rate": 0.05}, "init": "it's a file.safetensors"},
        {"local": {"work": "minibatch"}, "method": {"name": "ef21-sgdm"}},
    ],
)
def test_the_command_line_of_a_run_stands_for_its_whole_configuration(changed: dict[str, Any]) -> None:
    wanted = options(**changed)
    line = spelled_out(wanted)
    assert line is not None
    words = shlex.split(line)
    assert words[:2] == ["thinwire", "simulate"]
    given = dict(zip(words[2::2], words[3::2], strict=True)) | {"--set": None}
    assignments = [value for flag, value in zip(words[2::2], words[3::2], strict=True) if flag == "--set"]
    names = {part: given.get(f"--{part}") for part in ("method", "uplink", "downlink", "task")}
    flags = {part: _number(given.get(f"--{part}")) for part in ("clients", "rounds", "seed", "participation")}
    assert RunConfig.of(run_options(None, flags, names, assignments)) == RunConfig.of(wanted)


def _number(text: str | None) -> float | int | None:
    return None if text is None else json.loads(text)


def test_a_page_of_ten_thousand_rounds_and_a_thousand_clients_is_small_and_says_that_it_was_thinned() -> None:
    text = page(made_up(10_000, 1_000, 6), [], {})
    assert len(text.encode()) < 3 * MEGABYTE
    found = data_of(text)
    assert found["runs"][0]["of"] == 10_000
    assert found["runs"][0]["kept"] <= 1_000
    assert len(found["clients"]["name"]) == 1_000
    assert sum(found["clients"]["asked"]) == 10_000 * 6
    assert found["clients"]["map"]["width"] > 1
    assert found["times"]["width"] > 1


def test_thinning_keeps_the_extremes_and_the_ends() -> None:
    rows = [{"round": n, "loss": 1.0, "uplink_bytes": 1, "downlink_bytes": 1} for n in range(1, 20_001)]
    rows[7_777]["loss"], rows[12_345]["loss"], rows[5]["loss"] = 9.0, 0.5, None  # type: ignore[call-overload]
    kept = thinned(rows, 1_000)
    assert len(kept) <= 1_000
    assert {0, 7_777, 12_345, 19_999} <= set(kept)
    found = curves(rows, 1_000)
    assert found["round"][-1] == 20_000
    assert found["uplink"][-1] == 20_000
    assert max(y for y in found["metrics"]["loss"]["y"] if y is not None) == 9.0


def test_rare_evaluations_are_all_kept() -> None:
    rows = [{"round": n, "uplink_bytes": 1, "downlink_bytes": 1} for n in range(1, 5_001)]
    for row in rows[99::100]:
        row["loss"] = row["round"]
    assert curves(rows, 1_000)["metrics"]["loss"]["y"] == list(range(100, 5_001, 100))


def test_of_many_events_the_rare_ones_stay() -> None:
    told = [{"event": "hello", "time": float(n), "client": f"c{n}"} for n in range(50_000)]
    told[123] = {"event": "hostile", "time": 123.0, "client": "c", "detail": "x" * 10_000}
    found = events(told)
    assert found["of"] == 50_000
    assert found["kinds"] == {"hello": 49_999, "hostile": 1}
    assert len(found["shown"]) == MOST_EVENTS
    assert found["shown"][0][1] == "hostile"
    assert len(found["shown"][0][4]) == 300
    assert found["shown"][-1][2] == "c49999"


def test_the_map_tells_who_was_asked_and_answered_failed_or_stayed_away(tmp_path: Path) -> None:
    from base64 import b64decode

    run = RecordedRun.read(record_run(tmp_path / "run", rounds=40))
    clients = data_of(page(run, [], {}))["clients"]
    map_ = clients["map"]
    planes = {name: b64decode(map_[name]) for name in ("asked", "replied", "failed")}
    for place, row in enumerate(run.rows):
        for client in range(6):
            cell = [planes[name][client * map_["columns"] + place] for name in ("asked", "replied", "failed")]
            failed = client == 1 and row["round"] % 5 == 0 and client in row["asked"]
            assert cell == [client in row["asked"], client in row["replied"], failed]
    assert clients["failed"][1] > 0
    assert clients["replied"][2] == 0 < clients["asked"][2]


def test_bytes_by_client_and_their_dense_equivalent_add_up_to_the_runs(tmp_path: Path) -> None:
    run = RecordedRun.read(record_run(tmp_path / "run"))
    clients = data_of(page(run, [], {}))["clients"]
    assert sum(clients["up"]) == sum(row["uplink_bytes"] for row in run.rows)
    assert sum(clients["down"]) == sum(row["downlink_bytes"] for row in run.rows)
    assert sum(clients["denseUp"]) + sum(clients["denseDown"]) == sum(row["dense_bytes"] for row in run.rows)
    assert clients["total"] == {name: sum(clients[name]) for name in ("up", "down", "denseUp", "denseDown")}


def test_of_more_clients_than_are_listed_all_count_and_the_slowest_are_found() -> None:
    run = made_up(400, 3 * MOST_CLIENTS, 50)
    run.rows[300]["client_seconds"][str(run.rows[300]["replied"][-1])] = 77.0  # type: ignore[index]
    clients = data_of(page(run, [], {}))["clients"]
    assert len(clients["name"]) == MOST_CLIENTS < clients["of"] == 3 * MOST_CLIENTS
    assert run.rows[300]["replied"][-1] > MOST_CLIENTS
    total = clients["total"]
    assert total["up"] == sum(row["uplink_bytes"] for row in run.rows) > sum(clients["up"])
    assert total["down"] == sum(row["downlink_bytes"] for row in run.rows)
    assert total["denseUp"] + total["denseDown"] == sum(row["dense_bytes"] for row in run.rows)
    assert clients["slowest"][0]["longest"] == 77.0
    means = [client["mean"] for client in clients["slowest"]]
    assert means == sorted(means, reverse=True)


def test_the_page_has_the_digest_of_the_model(tmp_path: Path) -> None:
    from hashlib import sha256

    run = record_run(tmp_path / "run", rounds=1)
    assert sha256((run / "model.safetensors").read_bytes()).hexdigest() in read_page(run)


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    run = record_run(tmp_path / "run", rounds=1)
    with pytest.raises(ConfigError, match="choose another"):
        report([run], out=run / "run.toml" / "page.html", compare=None, target=None, json_=False)
    with pytest.raises(ConfigError, match="holds no run"):
        report([tmp_path], out=None, compare=None, target=None, json_=False)


def test_every_colour_of_text_can_be_read_on_its_ground() -> None:
    """WCAG 2: at least 4.5 to 1 for text, 3 to 1 for what is drawn; in both themes."""
    from importlib.resources import files

    style = files("thinwire.cli").joinpath("page", "report.css").read_text(encoding="utf-8")
    light, dark = style.split("@media (prefers-color-scheme: dark)")[0], style.split(':root[data-theme="dark"]')[1]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", theme))
        for ground in ("page", "card"):
            for ink in ("ink", "quiet", "accent", "bad"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
            for line in (f"s{place}" for place in range(8)):
                assert contrast(colours[line], colours[ground]) >= 3, f"{line} on {ground}"
        assert contrast(colours["accent"], colours["tint"]) >= 4.5


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_change_of_the_operators_is_told_with_its_keys_and_where_the_run_is_to_be_reproduced(tmp_path: Path) -> None:
    keys = {"rounds": 80, "participation.fraction": 1.0, "round.deadline_seconds": 3.0, "local.rate": 0.2}
    more = {"changed": {"by": "operator", "round": 4, "keys": keys}}
    text = read_page(record_run(tmp_path / "run", more=more))
    words = [event[4] for event in data_of(text)["events"]["shown"] if event[1] == "changed"]
    assert words == [
        "by operator, rounds = 80, participation.fraction = 1.0, round.deadline_seconds = 3.0, local.rate = 0.2"
    ]
    assert "was changed by its operator" in text
    assert "was changed by its operator" not in read_page(record_run(tmp_path / "other"))


def test_why_a_run_stopped_stands_at_the_top(tmp_path: Path) -> None:
    import dataclasses

    run = RecordedRun.read(record_run(tmp_path / "run", rounds=3))
    info = dataclasses.replace(run.info, state="failed", reason=f"round 4: {ENDS_SCRIPT}")
    text = page(dataclasses.replace(run, info=info), [], {})
    assert "It failed: round 4: &lt;/script&gt;" in text
    assert "failed, round 3 of 40" in text
