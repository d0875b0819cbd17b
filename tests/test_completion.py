"""What the shell completes is what there is, and comes without a second's wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from compressors import registry as compressors
from strategies.registry import method_names
from thinwire.cli import completion
from thinwire.presets import PRESETS
from thinwire.tasks.registry import registry as tasks


def test_the_names_are_those_of_the_registries() -> None:
    assert completion.method_names() == sorted([*method_names(), *PRESETS])
    assert completion.compressor_names() == sorted(compressors())
    assert completion.task_names() == sorted(tasks())


def complete(folder: Path, words: str) -> list[str]:
    """What bash is offered for the last word."""
    variables = {"_THINWIRE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "from thinwire.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **variables})
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("thinwire simulate --method ef21", {"ef21", "ef21-bc", "ef21-plus", "ef21-sgdm"}),
        ("thinwire server --uplink rand", {"rand-k"}),
        ("thinwire client --task adv", {"adversarial-digits"}),
        ("thinwire compressors top", {"top-k"}),
        ("thinwire sta", {"status"}),
        ("thinwire watch runs/", {"runs/one"}),
    ],
)
def test_the_shell_is_offered_the_names(words: str, offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.sqlite").touch()
    (tmp_path / "runs" / "notes").mkdir()
    assert set(complete(tmp_path, words)) == offered


def test_completing_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, thinwire.cli.commands as c; c.completion.methods('e'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "False", done.stderr


def test_the_completion_can_be_shown_to_be_installed() -> None:
    command = [sys.executable, "-c", "from thinwire.cli import main; main()", "--show-completion", "bash"]
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # or typer looks for a shell among the parents
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | named)
    assert "_THINWIRE_COMPLETE" in done.stdout, done.stderr
