"""What docs/runs.md says of a run directory is so: its schema, its SQL, its Python."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_kit import CONFIG, ROOT, ROSTER, row

from server.run_directory import RunDirectory
from server.run_store import open_run
from server.run_store_schema import APPLICATION, NAME, TABLES, VERSION
from thinwire.run_config import CheckpointConfig, RecordConfig

PAGE = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
SCHEMA, *QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    with RunDirectory(path) as folder:
        folder.write_config(CONFIG)
        folder.record("roster", ROSTER)
        for number in range(1, 9):
            train = {"train_loss": 2.0 / number}
            folder.record("round", {**row(number, absent=[2] if number == 3 else []), "train": train})
        folder.record("hostile", {"client": "hospital-1", "round": 4, "detail": "an index out of range"})
        folder.end("finished")
    return path


def test_the_schema_on_the_page_is_that_of_the_code() -> None:
    assert SCHEMA.strip() == TABLES.strip()


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_every_question_on_the_page_has_an_answer(question: str, run: Path) -> None:
    with closing(sqlite3.connect(f"{(run / NAME).as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(question)
        columns = [column for column, *_ in found.description]
        answers = found.fetchall()
    assert answers
    assert all(any(answer[place] is not None for answer in answers) for place in range(len(columns))), columns


def test_the_answers_are_right(run: Path) -> None:
    with closing(sqlite3.connect(f"{(run / NAME).as_uri()}?mode=ro", uri=True)) as connection:
        answers = [connection.execute(question).fetchall() for question in QUESTIONS]
    assert answers[1][0][:2] == (8, 1 - 1 / 9)
    assert answers[1][0][2:] == (100 * 15, 100 * 15 + 140 * 8)
    assert answers[2] == [(4, 200 * 3 + 100 + 140 * 4)]
    assert answers[4][0][0] == "hospital-2"
    assert answers[5][0][2] == "hospital-2"
    assert answers[6][0] == (8, 0.25)
    assert answers[8][0][1:] == ("hospital-1", "an index out of range")


def test_the_python_on_the_page_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(run.parent)
    run.parent.joinpath("runs").mkdir()
    run.parent.joinpath("runs", "ef21").symlink_to(run)
    exec(code, {})


def test_the_versions_and_defaults_on_the_page_are_those_of_the_code() -> None:
    assert f"`PRAGMA user_version`, now {VERSION}" in PAGE
    assert f"`PRAGMA application_id` is 0x{APPLICATION:X}" in PAGE
    assert f"`checkpoint.keep` checkpoints ({CheckpointConfig().keep})" in PAGE
    assert f"`record.events` events ({RecordConfig().events:,}" in PAGE


def test_the_files_on_the_page_are_those_of_a_run_directory(run: Path) -> None:
    assert open_run(run).info.state == "finished"
    named = set(re.findall(r"`([^`]+)`", PAGE.partition("## 1. The files")[2].partition("## 2.")[0]))
    assert {path.name for path in run.iterdir()} <= named
