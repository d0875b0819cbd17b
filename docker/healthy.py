#!/usr/bin/env python3
"""Health checks: ``healthy.py listens PORT`` of a server, ``healthy.py connected PORT`` of a client to its server."""

import socket
import sys
from pathlib import Path

ESTABLISHED = "01"


def listens(port: int) -> bool:
    """Whether something takes connections on this machine's port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def connected(port: int) -> bool:
    """Whether this container holds a TCP connection to that port of another."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


if __name__ == "__main__":
    sys.exit(0 if {"listens": listens, "connected": connected}[sys.argv[1]](int(sys.argv[2])) else 1)
