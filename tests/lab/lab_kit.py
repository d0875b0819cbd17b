"""``thinwire lab`` as people and scripts meet it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from thinwire.cli import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What ``--json`` printed, by label; the labels of one call must differ."""
        assert self.code == 0, self.err
        found = json.loads(self.out)
        assert len({row["label"] for row in found}) == len(found)
        return {row["label"]: row for row in found}


Lab = Callable[..., Ended]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Lab:
    """``thinwire lab`` with these arguments, in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["thinwire", "lab", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Ended(stop.value.code, out, err)

    return run
