"""Who a node of Flower's engines is, and where it keeps its state: what its own configuration says."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError, WireError
from thinwire.wire.exchange import check_client_name


def name_of(config: Mapping[str, Any], node: int) -> str:
    """The client's name: ``client-id``, or else ``client-`` and the ``partition-id``, or else and the node's id.

    Raises ConfigError for a name that cannot stand in a path.
    """
    name = str(config.get("client-id", f"client-{int(config.get('partition-id', node)):05d}"))
    try:
        return check_client_name(name)
    except WireError as error:
        raise ConfigError(f"client-id: {error}") from None


def states_of(config: Mapping[str, Any]) -> Path:
    """The folder of the private states: ``state``, or else ``thinwire-clients`` in Flower's home."""
    home = Path(os.environ.get("FLWR_HOME", Path.home() / ".flwr"))
    return Path(str(config.get("state") or home / "thinwire-clients"))
