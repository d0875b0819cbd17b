"""thinwire plot: one sheet of several runs, with names that tell them apart."""

import json
from pathlib import Path

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from report_kit import record_run

from thinwire.cli.curves import SIMULATED_SECONDS, Curve, prices, targets
from thinwire.cli.drawing import plot
from thinwire.cli.pictures import draw
from thinwire.cli.recorded_run import RecordedRun
from thinwire.cli.run_labels import labels
from thinwire.errors import ConfigError

pytest.importorskip("matplotlib")
ALL = "rounds,seconds,uplink,total"


def names_of(*paths: Path) -> list[str]:
    return labels([RecordedRun.read(path) for path in paths])


def test_one_run_is_named_after_its_method_and_compressors(tmp_path: Path) -> None:
    assert names_of(record_run(tmp_path / "a", rounds=1)) == ["ef21: top-k both ways"]


def test_runs_of_one_method_are_named_by_what_differs_in_their_configurations(tmp_path: Path) -> None:
    a = record_run(tmp_path / "a", rounds=1)
    b = record_run(tmp_path / "b", rounds=1, uplink={"name": "top-k", "fraction": 0.05})
    c = record_run(tmp_path / "c", rounds=1, seed=7)
    assert names_of(a, b, c) == ["ef21, seed 0", "ef21, up fraction 0.05, seed 0", "ef21, seed 7"]


def test_other_compressors_are_named_before_anything_else(tmp_path: Path) -> None:
    a = record_run(tmp_path / "a", rounds=1, seed=1)
    b = record_run(tmp_path / "b", rounds=1, method={"name": "fedavg"}, uplink="identity", downlink="identity")
    assert names_of(a, b) == ["ef21: top-k both ways", "fedavg: dense both ways"]


def test_runs_that_are_configured_alike_are_named_by_their_folders_however_alike_these_are(tmp_path: Path) -> None:
    a, b = record_run(tmp_path / "a", rounds=1), record_run(tmp_path / "b", rounds=1)
    assert names_of(a, b) == ["ef21 (a)", "ef21 (b)"]
    assert len(set(names_of(a, a, b))) == 3


def test_what_only_changes_how_a_run_is_hosted_does_not_name_it(tmp_path: Path) -> None:
    a = record_run(tmp_path / "a", rounds=1)
    b = record_run(tmp_path / "b", rounds=1, checkpoint={"every": 3})
    assert names_of(a, b) == ["ef21 (a)", "ef21 (b)"]


@pytest.mark.parametrize("count", [1, 8])
def test_a_sheet_of_one_to_eight_runs_has_the_same_bytes_every_time(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [record_run(tmp_path / f"run{seed}", rounds=6, seed=seed, rate=0.1 + seed / 20) for seed in range(count)]
    runs[-1] = record_run(tmp_path / "going-on", rounds=4, over=False, seed=99)
    drawn = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        plot(runs, out=folder, x="seconds,total", target=["accuracy=0.3"], json_=True)
        told = json.loads(capsys.readouterr().out)
        drawn.append([folder.joinpath(name).read_bytes() for name in ("curves.png", "curves.svg")])
        assert [file["bytes"] for file in told["files"]] == [len(content) for content in drawn[-1]]
        assert len(told["runs"]) == count
    assert drawn[0] == drawn[1]
    assert b"<script" not in drawn[0][1]


def test_the_target_says_what_each_run_took_to_get_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record_run(tmp_path / "run", rounds=20)
    plot([run], out=tmp_path / "sheet.svg", x="rounds", target=["accuracy=0.5", "loss=0.01"], json_=True)
    told = json.loads(capsys.readouterr().out)
    assert [Path(file["path"]).name for file in told["files"]] == ["sheet.svg"]
    reached = told["runs"][0]["reached"]
    rows = RecordedRun.read(run).rows
    first = next(row for row in rows if row["accuracy"] >= 0.5)
    assert reached["accuracy"]["round"] == first["round"]
    assert reached["accuracy"]["uplink_bytes"] == sum(row["uplink_bytes"] for row in rows[: first["round"]])
    assert reached["loss"] is None


def test_legend_and_title_keep_apart_and_texts_at_the_ends_do_not_lie_on_each_other(tmp_path: Path) -> None:
    from thinwire.cli.pictures import _figure

    runs = [RecordedRun.read(record_run(tmp_path / f"{seed}", rounds=5, seed=seed)) for seed in range(8)]
    curves = [
        Curve.of(f"{name}, a long name for a run", run.rows) for name, run in zip(labels(runs), runs, strict=True)
    ]
    figure = _figure("digits: six clients", curves, prices(ALL, curves), {"accuracy": 0.2})
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    legend, title = figure.legends[0].get_window_extent(renderer), figure._suptitle.get_window_extent(renderer)
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    assert not legend.overlaps(title)
    assert not any(legend.overlaps(panel) or title.overlaps(panel) for panel in panels)
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    shown = [text for axes in figure.axes for text in axes.texts if text.get_visible() and "MB" in text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in shown]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_a_run_that_diverged_is_drawn_as_far_as_it_is_finite(tmp_path: Path) -> None:
    rows = RecordedRun.read(record_run(tmp_path / "run", rounds=5)).rows
    rows = [*rows[:3], *({**row, "loss": None, "accuracy": None} for row in rows[3:])]
    curve = Curve.of("diverged", rows)
    assert curve.end("loss") == 2
    assert len(draw([tmp_path / "a.png"], "diverged", [curve], prices(ALL, [curve]))) == 1


def test_seconds_over_simulated_links_are_drawn_where_all_runs_have_them(tmp_path: Path) -> None:
    rows = RecordedRun.read(record_run(tmp_path / "run", rounds=3)).rows
    linked = Curve.of("linked", [{**row, "simulated_seconds": 5.0} for row in rows])
    assert linked.simulated_seconds == [5.0, 10.0, 15.0]
    assert prices("seconds", [linked]) == [SIMULATED_SECONDS]
    assert prices("seconds", [linked, Curve.of("wall", rows)]) != [SIMULATED_SECONDS]


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ({"x": "rounds,time"}, "'time' is none of rounds, seconds, uplink, total"),
        ({"x": ","}, "--x names nothing"),
        ({"target": ["0.9"]}, "write METRIC=VALUE"),
        ({"target": ["speed=3"]}, "METRIC is accuracy or loss"),
        ({"out": Path("sheet.pdf")}, "ends in .png or .svg"),
    ],
)
def test_a_mistake_says_what_is_allowed(arguments: dict[str, object], phrase: str, tmp_path: Path) -> None:
    given = {"out": tmp_path, "x": ALL, "target": None, "json_": False, **arguments}
    with pytest.raises(ConfigError, match=phrase):
        plot([record_run(tmp_path / "run", rounds=1)], **given)


def test_what_holds_no_run_and_what_was_never_evaluated_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        plot([tmp_path], out=tmp_path, x=ALL, target=None, json_=False)
    with pytest.raises(ConfigError, match="nothing to draw"):
        plot([record_run(tmp_path / "run", rounds=2, every=9)], out=tmp_path, x=ALL, target=None, json_=False)
    with pytest.raises(ConfigError, match="9 runs are too many"):
        plot([tmp_path] * 9, out=tmp_path, x=ALL, target=None, json_=False)


def test_targets_are_read_as_written() -> None:
    assert targets(["accuracy=0.95", "loss=0.2"]) == {"accuracy": 0.95, "loss": 0.2}


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    run = record_run(tmp_path / "run", rounds=1)
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(ConfigError, match="choose another place with --out"):
        plot([run], out=tmp_path, x="rounds", target=None, json_=False)


def test_names_with_dollars_underscores_and_letters_that_the_font_lacks_are_drawn_as_they_are(tmp_path: Path) -> None:
    rows = RecordedRun.read(record_run(tmp_path / "run", rounds=3)).rows
    curves = [Curve.of(name, rows) for name in ("$\\frac{$ and $x$", "_hidden", "\u6d4b\u8bd5", "two\nlines")]
    assert len(draw([tmp_path / "a.svg"], "$\\alpha{$", curves, prices("rounds", curves))) == 1


def test_a_run_that_was_not_evaluated_is_named_and_the_others_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [record_run(tmp_path / "a", rounds=2), record_run(tmp_path / "b", rounds=2, every=9, seed=3)]
    plot(runs, out=tmp_path / "sheet.svg", x="rounds", target=None, json_=False)
    assert "not been evaluated yet: ef21, seed 3" in capsys.readouterr().err
