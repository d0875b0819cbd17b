"""``thinwire init``: files with every key and its default that cannot go stale, and a project that runs at once."""

import dataclasses
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from client.local import LocalOptions
from client.settings import ClientSettings, settings_of
from strategies.builder import build_method
from strategies.ordered import OrderOptions
from thinwire.cli.commented import client_toml, run_toml
from thinwire.cli.project import project
from thinwire.cli.serving import ServerConfig
from thinwire.cli.starting import write
from thinwire.config import build, section_of
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig
from thinwire.tasks import load_task

OFFERED = re.compile(r"^#(?=\S)", re.M)
ROOT = Path(__file__).parents[2]


def uncommented(text: str) -> dict[str, Any]:
    """The file with every key set that it offers."""
    return tomllib.loads(OFFERED.sub("", text))


def test_a_run_toml_is_the_defaults() -> None:
    options = tomllib.loads(run_toml())
    assert build(ServerConfig, options.pop("server"), "server") == ServerConfig()
    assert RunConfig.of(options) == RunConfig.of({})


def test_a_run_toml_of_options_reads_back_as_them() -> None:
    given = {
        "rounds": 7,
        "method": {"name": "diana"},
        "uplink": {"name": "rand-k", "fraction": 0.2},
        "downlink": "identity",
        "optimiser": {"name": "fedadam", "tau": 0.01},
        "local": {"work": "full"},
        "task": {"name": "mine:Own", "path": "/data"},
    }
    options = tomllib.loads(run_toml(given))
    del options["server"]
    assert RunConfig.of(options) == RunConfig.of(given)


def test_the_offered_keys_of_a_run_have_their_defaults() -> None:
    options = uncommented(run_toml())
    config = RunConfig.of({key: value for key, value in options.items() if key != "server"})
    default = RunConfig.of({})

    def method(config: RunConfig) -> object:
        return build_method(config.method, config.uplink, config.downlink, config.optimiser, local=config.local)

    assert method(config) == method(default)
    assert build(LocalOptions, config.local, "local") == build(LocalOptions, default.local, "local")
    assert build(OrderOptions, config.order, "order") == OrderOptions()
    assert load_task(config.task) == load_task(default.task)


def test_every_key_of_a_run_and_of_a_server_is_there() -> None:
    options = uncommented(run_toml())
    for kind, found in ((RunConfig, options), (ServerConfig, options["server"])):
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            assert field.name in found
            inner = section_of(hints[field.name])
            assert inner is None or set(found[field.name]) == {f.name for f in dataclasses.fields(inner)}
    assert {f.name for f in dataclasses.fields(LocalOptions)} - {"options"} == set(options["local"])


def test_every_key_says_what_it_means() -> None:
    silent = []
    for text in (run_toml(), client_toml()):
        lines = text.splitlines()
        silent += [
            line
            for before, line in pairwise(lines)
            if re.match(r"#?\w+ = ", line) and "  # " not in line and not before.startswith("# ")
        ]
    allowed = {'name = "ef21"', 'name = "top-k"', 'name = "sgd"', '#name = "package.module:Class"', '#path = "FOLDER"'}
    assert set(silent) <= allowed  # names, below the section's own comment


def test_a_client_toml_is_the_defaults_and_leaves_the_name_to_the_host() -> None:
    options = tomllib.loads(client_toml())
    assert settings_of(options) == ClientSettings()
    assert "name" not in options
    assert {f.name for f in dataclasses.fields(ClientSettings)} == set(uncommented(client_toml()))


def test_a_project_runs_at_once_and_its_own_tests_pass(tmp_path: Path) -> None:
    made = run_thinwire(tmp_path, "init", "--app", "two-moons")
    assert "next: cd two-moons && thinwire simulate -c run.toml" in made
    folder = tmp_path / "two-moons"
    assert {path.name for path in folder.iterdir()} == {
        "two_moons.py",
        "test_two_moons.py",
        "run.toml",
        "client.toml",
        "README.md",
    }
    assert settings_of(tomllib.loads((folder / "client.toml").read_text())).task == {"name": "two_moons:TwoMoons"}
    tested = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(tested, cwd=folder, capture_output=True, text=True)  # they run thinwire simulate -c run.toml
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_commands_of_the_readme_are_those_there_are() -> None:
    readme = project("two-moons")["README.md"]
    known = {"simulate", "server", "client", "watch", "certs", "doctor"}
    assert set(re.findall(r"thinwire (\w+)", readme)) <= known


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text("mine")
    with pytest.raises(ConfigError, match=r"client\.toml exists already; --force overwrites"):
        write(tmp_path, {"run.toml": "a", "client.toml": "b"}, force=False)
    assert not (tmp_path / "run.toml").exists()
    assert (tmp_path / "client.toml").read_text() == "mine"
    write(tmp_path, {"run.toml": "a", "client.toml": "b"}, force=True)
    assert (tmp_path / "client.toml").read_text() == "b"


@pytest.mark.parametrize("name", ["json", "torch", "2-moons", "../up", "Moons", "a--b", ""])
def test_a_name_that_cannot_be_a_module_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--app"):
        project(name)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file"):
        write(tmp_path / "file" / "below", {"run.toml": ""}, force=False)


def run_thinwire(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from thinwire.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
