"""Settings by environment, as a service manager or a container gives them."""

from pathlib import Path

import pytest

import thinwire.flower  # noqa: F401  first: it imports flwr quietly

# isort: split
from client.settings import settings_of
from thinwire.cli.options import client_options, run_options
from thinwire.cli.serving import ServerConfig
from thinwire.config import build
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig


def test_every_setting_of_a_server_can_be_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "THINWIRE_CLIENTS": "40",
        "THINWIRE_UPLINK__NAME": "top-k",
        "THINWIRE_UPLINK__FRACTION": "0.02",
        "THINWIRE_SERVER__ADDRESS": "[::]:8500",
        "THINWIRE_SERVER__CERTIFICATE": "/etc/thinwire/server.pem",
        "THINWIRE_SERVER__KEY": "/etc/thinwire/server.key",
        "THINWIRE_SERVER__TOKEN": "a secret",
        "THINWIRE_SERVER__ROSTER": '["ann", "bob"]',
        "THINWIRE_SERVER__CONNECTS_PER_MINUTE": "12",
        "THINWIRE_SERVER__STALL_SECONDS": "60.5",
    }.items():
        monkeypatch.setenv(name, text)
    options = run_options(None, {}, {}, [])
    settings = build(ServerConfig, options.pop("server"), "server")
    assert (settings.address, settings.token, settings.roster) == ("[::]:8500", "a secret", ("ann", "bob"))
    assert (settings.certificate, settings.key) == (Path("/etc/thinwire/server.pem"), Path("/etc/thinwire/server.key"))
    assert (settings.connects_per_minute, settings.stall_seconds) == (12.0, 60.5)
    config = RunConfig.of(options)
    assert (config.clients, config.uplink) == (40, {"name": "top-k", "fraction": 0.02})


def test_every_setting_of_a_client_can_be_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "THINWIRE_SERVER": "fleet.example.org:8500",
        "THINWIRE_NAME": "hospital-a",
        "THINWIRE_TASK__NAME": "idx",
        "THINWIRE_TASK__PATH": "/data/images",
        "THINWIRE_CA": "/etc/thinwire/ca.pem",
        "THINWIRE_PATIENCE_SECONDS": "0",
    }.items():
        monkeypatch.setenv(name, text)
    settings = settings_of(client_options(None, {}, None, []))
    assert (settings.server, settings.name, settings.ca) == (
        "fleet.example.org:8500",
        "hospital-a",
        "/etc/thinwire/ca.pem",
    )
    assert settings.task == {"name": "idx", "path": "/data/images"}
    assert settings.patience_seconds == 0


def test_the_environment_wins_over_the_file_and_a_flag_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.toml"
    file.write_text('server = "file:1"\nname = "file"\ndevice = "cpu"\n')
    monkeypatch.setenv("THINWIRE_SERVER", "environment:2")
    monkeypatch.setenv("THINWIRE_NAME", "environment")
    settings = settings_of(client_options(file, {"name": "flag"}, None, []))
    assert (settings.server, settings.name, settings.device) == ("environment:2", "flag", "cpu")


def test_a_misspelt_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINWIRE_SERVER__KEEP_ALIVE_SECONDS", "5")
    with pytest.raises(ConfigError, match="did you mean 'keepalive_seconds'"):
        build(ServerConfig, run_options(None, {}, {}, [])["server"], "server")
