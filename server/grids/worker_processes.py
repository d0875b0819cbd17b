"""Worker processes of a simulation: each answers for its own clients, and one that dies is replaced."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from server.grids.answers import Answers, VirtualNode, opened, replied
from thinwire.errors import RoundError, WireError
from thinwire.flower import APP_RAISED, error_reply
from thinwire.wire.pipe import Pipe

from flwr.app import Message  # isort: skip

MOST_DEATHS = 3  # of workers at one question, before the run gives up
AHEAD = 8  # replies that may wait to be taken, for each worker
END_SECONDS = 10.0  # for a worker to end by itself

log = logging.getLogger(__name__)


@dataclass
class Question:
    """What a worker is to answer."""

    message: Message
    node: VirtualNode
    parts: dict[str, bytes]
    kind: str


@dataclass
class Worker:
    """One process, the thread that talks to it, and the questions that it has still to answer, in order."""

    process: "subprocess.Popen[bytes] | None" = None
    pipe: Pipe | None = None
    questions: "OrderedDict[str, Question]" = field(default_factory=OrderedDict)


class WorkerProcesses(Answers):
    """``count`` processes, each with every ``count``-th client, so that a client's state has one owner.

    ``module`` is run as ``python -m MODULE DESCRIPTOR`` and gets ``settings`` as its first message (plain values), then
    questions as packed bytes. Replies are taken in whatever order the caller wants; a few per worker are computed
    ahead. A process that dies is started anew and asked again: its clients' states are on disk, and what it kept in
    memory is what the protocol restores.
    """

    def __init__(self, module: str, settings: Mapping[str, Any], count: int) -> None:
        self._module = module
        self._settings = dict(settings)
        self._change = threading.Condition()
        self._replies: dict[str, Message | RoundError] = {}
        self._wanted: str | None = None
        self._open = True
        self._workers = [Worker() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name=f"worker-{place}", daemon=True)
            for place, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, message: Message, node: VirtualNode) -> None:
        """Queue the question for the worker of its client."""
        try:
            kind, parts = opened(message)
        except WireError as error:
            with self._change:
                self._replies[message.metadata.message_id] = _failed(message, error)
            return
        worker = self._workers[node.index % len(self._workers)]
        with self._change:
            worker.questions[message.metadata.message_id] = Question(message, node, parts, kind)
            self._change.notify_all()

    def finish(self, message: Message, node: VirtualNode) -> Message:
        """Wait for the reply. Raises RoundError when workers die over it."""
        message_id = message.metadata.message_id
        with self._change:
            self._wanted = message_id
            self._change.notify_all()
            self._change.wait_for(lambda: message_id in self._replies)
            self._wanted = None
            reply = self._replies.pop(message_id)
            self._change.notify_all()
        if isinstance(reply, RoundError):
            raise reply
        return reply

    def forget(self, message_id: str) -> None:
        """Drop the question, or its reply."""
        with self._change:
            self._replies.pop(message_id, None)
            for worker in self._workers:
                worker.questions.pop(message_id, None)
            self._change.notify_all()

    def close(self) -> None:
        """End the processes; what they are computing is of no interest any more."""
        with self._change:
            self._open = False
            self._change.notify_all()
        for worker in self._workers:
            process = worker.process
            if process is not None:
                process.terminate()
        for thread in self._threads:
            thread.join()

    def processes(self) -> Sequence[int]:
        """The process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    # -- the thread of a worker ----------------------------------------------------------------------------------

    def _serve(self, worker: Worker) -> None:
        try:
            while (question := self._next(worker)) is not None:
                message_id = question.message.metadata.message_id
                try:
                    reply = self._answer(worker, question)
                except Exception as error:  # nobody may wait for a thread that is gone
                    reply = RoundError(f"no worker process can answer for {question.node.identity!r}: {error}")
                with self._change:
                    if worker.questions.pop(message_id, None) is not None:  # or it was forgotten meanwhile
                        self._replies[message_id] = reply
                    self._change.notify_all()
        finally:
            _end(worker)

    def _next(self, worker: Worker) -> Question | None:
        """The question to answer now; None when there will be no more. Waits while enough replies wait."""
        with self._change:
            self._change.wait_for(lambda: not self._open or self._due(worker) is not None)
            return self._due(worker) if self._open else None

    def _due(self, worker: Worker) -> Question | None:
        if self._wanted is not None and self._wanted in worker.questions:
            return worker.questions[self._wanted]
        if worker.questions and len(self._replies) < AHEAD * len(self._workers):
            return next(iter(worker.questions.values()))
        return None

    def _answer(self, worker: Worker, question: Question) -> Message | RoundError:
        name, code = question.node.identity, None
        for _ in range(MOST_DEATHS):
            if worker.pipe is None:
                self._start(worker)
            assert worker.pipe is not None
            try:
                worker.pipe.send({"client": name, "kind": question.kind}, question.parts)
                head, parts = worker.pipe.receive()
            except (EOFError, OSError):
                code = _end(worker)
                if not self._open:
                    break
                log.warning(
                    "a worker process ended (exit code %s) while it answered for %s; a new one goes on", code, name
                )
                continue
            if "error" in head:
                return error_reply(question.message.metadata, APP_RAISED, head["error"])
            return replied(question.message, parts)
        return RoundError(
            f"{MOST_DEATHS} worker processes ended while they answered for {name!r}, the last with exit code {code}; "
            "-9 is mostly a lack of memory: use fewer --workers"
        )

    def _start(self, worker: Worker) -> None:
        own, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        command = [sys.executable, "-m", self._module, str(theirs.fileno())]
        worker.process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(),),
            env=environment,
            process_group=0,  # Ctrl-C is the server's to act on
        )
        theirs.close()
        worker.pipe = Pipe(Connection(own.detach()))
        with contextlib.suppress(OSError):  # it has ended already: the first question tells
            worker.pipe.send(self._settings, {})


def _end(worker: Worker) -> int | None:
    """Hang up; the process's exit code."""
    if worker.pipe is not None:
        worker.pipe.close()
    process, worker.process, worker.pipe = worker.process, None, None
    if process is None:
        return None
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _failed(message: Message, error: WireError) -> Message:
    return error_reply(message.metadata, APP_RAISED, f"{type(error)}:<'{error}'>")
