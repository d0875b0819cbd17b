"""A server and a client as operators start them, scraped while they work."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from monitoring_support import DEADLINE_SECONDS, Scrape, wait_for

RUN = ["--clients", "1", "--rounds", "100000", "--set", "task.hidden=[8]", "--set", "evaluation.where=none"]
LOUD = re.compile(r"(metrics are at http://|listening on )(\S+:\d+)")


def start(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        command = [sys.executable, "-c", "from thinwire.cli import main; main()", *arguments]
        return subprocess.Popen(command, cwd=log.parent, stdout=out, stderr=out)


def told(log: Path, process: subprocess.Popen[bytes], what: str) -> str:
    """The address that a process says after these words."""

    def found() -> str | None:
        text = log.read_text()
        assert process.poll() is None, text
        return next((address for said, address in LOUD.findall(text) if said.startswith(what)), None)

    return wait_for(found, what)


def test_server_and_client_are_scraped_while_they_work(tmp_path: Path) -> None:
    server_log, client_log, processes = tmp_path / "server.log", tmp_path / "client.log", []
    try:
        flags = ["--address", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--out", "run"]
        processes.append(start(server_log, "server", *flags, *RUN, "--set", "server.control=off"))
        server = told(server_log, processes[0], "listening")
        of_server = wait_for(lambda: re.search(r"http://(\S+)/metrics", server_log.read_text()), "endpoint")[1]
        early = Scrape(of_server)
        assert (early("thinwire_rounds_total"), early("thinwire_connected_clients")) == (0, 0)

        flags = ["--server", server, "--name", "one", "--state", "state", "--metrics", "127.0.0.1:0"]
        processes.append(start(client_log, "client", *flags))
        of_client = told(client_log, processes[1], "metrics")
        wait_for(lambda: Scrape(of_server)("thinwire_rounds_total") >= 3, "third round")
        first, then = Scrape(of_client), Scrape(of_server)
        assert then("thinwire_roster_connected", client="one") == 1
        assert then("thinwire_bytes_total", direction="up", client="one") > 0
        assert then("thinwire_journal_seconds_count") >= 3
        assert 0 < then("thinwire_compression_error", direction="up") < 1
        assert first("thinwire_client_rounds_total") >= 3
        assert first("thinwire_client_dials_total") == 1
        assert first("thinwire_client_seconds_total", phase="training") > 0
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(processes):
            try:
                process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
