"""What the operator's tests share: commands as real processes, pipes that are read as they fill, and a terminal."""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
THINWIRE = (sys.executable, "-c", "from thinwire.cli import main; main()")
DEADLINE_SECONDS = 90.0

T = TypeVar("T")


def wait_for(find: Callable[[], T], what: Callable[[], str] | str, seconds: float = DEADLINE_SECONDS) -> T:
    """What ``find`` returns once it is something."""
    deadline = time.monotonic() + seconds
    while not (value := find()):
        assert time.monotonic() < deadline, f"no {what if isinstance(what, str) else what()} in {seconds:.0f} s"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A command that runs; what it prints is read while it does."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.arguments = arguments
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.out: list[str] = []
        self.err: list[str] = []
        self.popen = subprocess.Popen(
            [*THINWIRE, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment(),
            start_new_session=True,  # a signal of the terminal is not meant for it
        )
        readers = ((self.popen.stdout, self.out), (self.popen.stderr, self.err))
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in readers]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, kept: list[str]) -> None:
        for line in stream:
            kept.append(line.rstrip("\n"))
            if kept is self.out:
                self.lines.put(kept[-1])

    def told(self, phrase: str) -> str:
        """The line of standard error that says so, once it is there."""
        return wait_for(lambda: next((line for line in list(self.err) if phrase in line), ""), self.story)

    def hears(self, right: Callable[[str], bool]) -> str:
        """The next line of standard output that is right."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(self.story()) from None
            if right(line):
                return line

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ended(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Its exit code, and all that it printed is there."""
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.story()}") from None
        for reader in self._readers:
            reader.join(10)
        return code

    def story(self, lines: int = 20) -> str:
        out, err = "\n".join(self.out[-lines:]), "\n".join(self.err[-lines:])
        return f"thinwire {' '.join(self.arguments)}\n--- standard output\n{out}\n--- standard error\n{err}"

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)
        for reader in self._readers:
            reader.join(10)
        for stream in (self.popen.stdout, self.popen.stderr):
            assert stream is not None
            stream.close()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT)]), "OMP_NUM_THREADS": "1"}


class Shell:
    """Starts commands in one folder, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    def start(self, *arguments: str) -> Process:
        process = Process(self.folder, *arguments)
        self.started.append(process)
        return process

    def run(self, *arguments: str, code: int = 0) -> Process:
        """A command to its end."""
        process = self.start(*arguments)
        assert process.ended() == code, process.story()
        assert not any("Traceback" in line for line in process.err), process.story()
        return process

    def text(self, *arguments: str) -> str:
        """What a command prints."""
        return "\n".join(self.run(*arguments).out)

    def json(self, *arguments: str) -> Any:
        """What a command prints as JSON, and nothing else."""
        return json.loads(self.text(*arguments, "--json"))


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    one = Shell(folder)
    try:
        yield one
    finally:
        for process in one.started:
            process.close()


@contextmanager
def terminal(folder: Path, *arguments: str, size: tuple[int, int] = (100, 30)) -> Iterator["Terminal"]:
    """The command on a terminal of tmux, whose screen can be looked at. Only where there is tmux."""
    one = Terminal(folder, arguments, size)
    try:
        yield one
    finally:
        one.close()


class Terminal:
    """A window of a tmux server of its own."""

    def __init__(self, folder: Path, arguments: Sequence[str], size: tuple[int, int]) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux.socket"), "-f", os.devnull]
        command = [*THINWIRE, *arguments]
        sized = ["-x", str(size[0]), "-y", str(size[1])]
        subprocess.run(
            [*self._tmux, "new-session", "-d", *sized, "-c", str(folder), *command], check=True, env=environment()
        )
        self._run("set-option", "-g", "remain-on-exit", "on")

    def screen(self) -> str:
        """What is on it now."""
        return self._run("capture-pane", "-p")

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def press(self, key: str) -> None:
        self._run("send-keys", key)

    def shows(self, *phrases: str) -> str:
        """The screen, once it shows all of these."""
        wait_for(lambda: all(phrase in self.screen() for phrase in phrases), lambda: f"{phrases} on\n{self.screen()}")
        return self.screen()

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=True)
        return done.stdout


HAS_TMUX = shutil.which("tmux") is not None
