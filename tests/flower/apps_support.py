"""What the tests of existing Flower apps share: a small app, a grid with faults, and letters carried by hand."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from client.mod import APPS, Compression
from client.store import Committed, DiskClientStore, Pending
from server.grids.in_process import InProcessGrid
from strategies.correspondence import Correspondence, Heard, Question
from strategies.cut import Cut
from strategies.grid_transport import TYPES, from_parts, holds_parts, to_parts
from strategies.terms import Terms, section
from thinwire.flower import addressed, make_message, new_context, request
from thinwire.random import Key, uniforms
from thinwire.tasks.digits import Digits

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip

RUN = 7
CLIENTS = 4

# -- a small app on the digits, with a counter and statistics as BatchNorm has them ------------------------------


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 10))


def initial() -> ArrayRecord:
    return ArrayRecord(make_net().state_dict())


def examples_of(partition: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = Digits(partition="iid").train_examples(partition, CLIENTS, 0)
    return found.batch(torch.arange(len(found)), torch.device("cpu"))


def accuracy(arrays: ArrayRecord) -> float:
    found = Digits().test_examples()
    x, y = found.batch(torch.arange(len(found)), torch.device("cpu"))
    net = make_net()
    net.load_state_dict(arrays.to_torch_state_dict())
    net.eval()
    return float((net(x.flatten(1).float()).argmax(1) == y).float().mean())


def train(message: Message, context: Context) -> Message:
    """Ten steps of SGD on the client's own digits, in their order."""
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = examples_of(int(context.node_config["partition-id"]))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.2)
    for start in range(0, 300, 30):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x[start : start + 30].flatten(1).float()), y[start : start + 30])
        loss.backward()
        optimiser.step()
    metrics = MetricRecord({"num-examples": len(y), "losses": [loss.item(), 1.0]})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    record = message.content["arrays"]
    tracked = float(record["1.num_batches_tracked"].numpy())
    metrics = MetricRecord({"num-examples": 1, "accuracy": accuracy(record), "tracked": tracked})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def make_app(*mods: Any) -> ClientApp:
    app = ClientApp(mods=list(mods))
    app.train()(train)
    app.evaluate()(evaluate)
    return app


# -- a grid with faults ------------------------------------------------------------------------------------------

Fault = Callable[[Message], Message]


class FaultyGrid(InProcessGrid):
    """Every reply passes through ``fault`` on its way."""

    def __init__(self, app: ClientApp, fault: Fault, nodes: int = CLIENTS) -> None:
        super().__init__(app, nodes, RUN)
        self.fault = fault

    def replies(self, message_ids: Any, timeout: float | None = None) -> Any:
        return (self.fault(reply) for reply in super().replies(message_ids, timeout))


def asked_by(reply: Message) -> Any:
    """The metadata of the request, from its reply."""
    asked = request(RecordDict(), reply.metadata.message_type, reply.metadata.src_node_id, RUN)
    return addressed(asked, RUN, reply.metadata.reply_to_message_id).metadata


def parts_in(message: Message) -> tuple[str, dict[str, bytes]]:
    """The record with Thinwire's parts, and the parts."""
    name = next(name for name, record in message.content.array_records.items() if holds_parts(record))
    return name, {key: array.data for key, array in message.content.array_records[name].items()}


def with_parts(message: Message, parts: Mapping[str, bytes]) -> Message:
    """The message with other parts."""
    records = {**dict(message.content.items()), parts_in(message)[0]: to_parts(parts)}
    return make_message(message.metadata, content=RecordDict(records))


# -- letters carried by hand, from a correspondence to a client and back -----------------------------------------


def quadratic(name: str, dimension: int = 300) -> dict[str, np.ndarray]:
    """Where one client's function has its minimum, with a counter beside it."""
    draws = uniforms(Key(5, name), dimension).astype(np.float32)
    return {"x": draws - 0.5, "count": np.array(3, np.int64)}


@dataclass
class Letters:
    """A server's correspondence and its clients, each a function x -> x - (x - b) / 2, whose state is on disk."""

    correspondence: Correspondence
    state: Path
    diverges: bool = False  # whether the clients' training does

    @staticmethod
    def under(method: str, state: Path, uplink: Any = None, downlink: Any = "identity") -> "Letters":
        arrays = quadratic("start")
        uplink = section(uplink or {"name": "top-k", "fraction": 0.1, "values": "fp32"})
        terms = Terms(Cut.of(arrays), section(method), uplink, section(downlink))
        return Letters(Correspondence(terms, arrays), state)

    def carry(self, question: Question, name: str) -> dict[str, bytes]:
        """The parts of the client's reply to a question."""

        def app(message: Message, context: Context) -> Message:
            if message.metadata.message_type == "evaluate":
                return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
            arrays = {n: a.numpy() for n, a in message.content["arrays"].items()}
            arrays["x"] = arrays["x"] - (arrays["x"] - quadratic(name)["x"]) / 2
            arrays["x"] *= np.float32(np.inf if self.diverges else 1)
            arrays["count"] = arrays["count"] + 1
            record = ArrayRecord({n: Array(np.asarray(a)) for n, a in arrays.items()})
            return Message(RecordDict({"arrays": record}), reply_to=message)

        content = RecordDict({"arrays": to_parts(question.parts)})
        message = request(content, TYPES[question.kind], question.node, RUN)
        message = addressed(message, RUN, "letter")
        context = new_context(RUN, question.node, {"client-id": name})
        reply = Compression(state=str(self.state))(message, context, app)
        records = reply.content.array_records
        return from_parts(records[next(iter(records))]) if records else {}

    def hear(self, question: Question, name: str, online: Collection[int] = ()) -> tuple[Heard, int]:
        """The outcome after as many repeats as it takes, and their number."""
        repeats = 0
        heard = self.correspondence.hear(question, self.carry(question, name), online)
        while heard.again is not None:
            repeats += 1
            heard = self.correspondence.hear(heard.again, self.carry(heard.again, name), online)
        return heard, repeats

    def store(self, name: str) -> DiskClientStore:
        return DiskClientStore(self.state / APPS, self.correspondence.run, name)

    def private(self, name: str, chain: bytes) -> Any:
        """The private state on a client's disk that the server knows by this chain."""
        store = self.store(name)
        for slot in ("pending", "committed"):
            kept = store.read(slot)
            if isinstance(kept, (Committed, Pending)) and kept.chain == chain:
                return kept.private
        raise AssertionError(f"{name} holds no state of that chain")
