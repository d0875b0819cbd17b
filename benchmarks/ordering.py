"""What an order of examples costs: ``python -m benchmarks.ordering [--json FILE] [--numel 1000000]``.

For each order: the time of a client's epoch against random reshuffling, for microbatches and for examples; the bytes up
and down per unit; the server's time per unit; and the memory of a client's private order and of the server's sums. The
model is a perceptron with about ``--numel`` parameters on random data, the method FedAvg; times are medians.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.local import LocalOptions
from client.oracles import TorchOracle
from strategies.base import Federation, Method, Round
from strategies.builder import build_method
from strategies.loop import content_bytes
from strategies.ordered import Ordered, OrderOptions
from thinwire import state
from thinwire.layout import Layout
from thinwire.tasks import Examples, Task, trainable_layout
from thinwire.tasks.examples import TensorExamples

INPUTS, CLASSES, EXAMPLES, BATCH = 256, 10, 512, 32
ORDERS = ("random", "grab", "id-grab", "cd-grab")


@dataclass(frozen=True)
class Row:
    """One order with one kind of unit."""

    order: str
    unit: str
    units: int
    epoch_seconds: float
    slowdown: float  # against random reshuffling with the same unit "batch"
    uplink_bytes_per_unit: float  # beside the update
    downlink_bytes_per_unit: float
    server_microseconds_per_unit: float
    client_bytes: int  # of the private order
    server_bytes: int  # of the sums


class Perceptron(Task):
    """Random examples of 256 numbers."""

    name = "perceptron of the benchmark"

    def __init__(self, numel: int) -> None:
        self.hidden = max(1, round(numel / (INPUTS + CLASSES)))

    def model(self) -> nn.Module:
        """Two layers."""
        return nn.Sequential(nn.Linear(INPUTS, self.hidden), nn.ReLU(), nn.Linear(self.hidden, CLASSES))

    def train_examples(self, partition: int, partitions: int, seed: int) -> Examples:
        """Noise."""
        generator = torch.Generator().manual_seed(partition)
        inputs = torch.randn(EXAMPLES, INPUTS, generator=generator)
        return TensorExamples(inputs, torch.randint(CLASSES, (EXAMPLES,), generator=generator))

    def test_examples(self) -> Examples:
        """Noise."""
        return self.train_examples(0, 1, 0)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, examples: Examples, device: torch.device) -> dict[str, float]:
        """Nothing is learnt."""
        return {"loss": 0.0}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numel", type=int, default=1_000_000, help="parameters of the model")
    parser.add_argument("--sketch", type=int, default=256, help="numbers that stand for a gradient")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of which the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = Perceptron(options.numel)
    layout = trainable_layout(task.model())
    rows: list[Row] = []
    print(f"{'order':>8} {'unit':>8} {'epoch s':>8} {'x random':>8} {'up B':>6} {'down B':>6} {'server us':>9}  memory")
    for unit in ("batch", "example"):
        for order in ORDERS:
            row = measure(task, layout, order, unit, options.sketch, options.repeats, rows[0] if rows else None)
            rows.append(row)
            sizes = f"{row.uplink_bytes_per_unit:>6.0f} {row.downlink_bytes_per_unit:>6.2f}"
            memory = f"client {row.client_bytes} B, server {row.server_bytes} B"
            times = f"{row.epoch_seconds:>8.3f} {row.slowdown:>8.2f}"
            print(
                f"{order:>8} {unit:>8} {times} {sizes} {row.server_microseconds_per_unit:>9.1f}  {memory}", flush=True
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


def measure(task: Task, layout: Layout, order: str, unit: str, sketch: int, repeats: int, first: Row | None) -> Row:
    """Two clients, an epoch a round; the first round begins the orders and is not counted."""
    inner = build_method({"name": "fedavg"})
    method: Method = Ordered(inner, OrderOptions(order, unit, sketch=sketch), "steps")  # type: ignore[arg-type]
    federation = Federation.uniform(layout, 2)
    local = LocalOptions(epochs=1, batch=BATCH, rate=0.01)
    oracles = [TorchOracle.of(task, task.train_examples(i, 2, 0), layout, options=local) for i in range(2)]
    x0 = layout.flatten(dict(task.model().named_parameters()))
    replica, server = method.begin(x0, federation)
    privates = [method.join(replica) for _ in oracles]
    plain = [inner.join(replica) for _ in oracles]
    personal: dict[int, Any] = {}
    seconds, serving, up, down = [], [], 0, 0
    units = oracles[0].units(unit)
    for number in range(1, repeats + 2):
        uplinks = []
        for client, oracle in enumerate(oracles):
            here = Round(number, federation, client, personal=personal.get(client, {}))
            started = time.perf_counter()
            privates[client], uplink = method.respond(replica, privates[client], oracle, here)
            seconds += [time.perf_counter() - started] if number > 1 else []
            uplinks.append((client, uplink))
            up += sum(p.size for name, p in uplink.items() if name not in inner.uplink) if number > 1 else 0
        there = Round(number, federation, asked=(0, 1))
        bare = [(c, {n: p for n, p in u.items() if n in inner.uplink}) for c, u in uplinks]
        started = time.perf_counter()
        inner.step(replica, server.server, bare, there)
        without = time.perf_counter() - started
        started = time.perf_counter()
        server, downlink = method.step(replica, server, uplinks, there)
        serving += [time.perf_counter() - started - without] if number > 1 else []
        personal = dict(downlink.personal)
        down += sum(content_bytes(own) for own in personal.values()) if number > 1 else 0
        replica = method.apply(replica, downlink.broadcast, there)
    epoch = statistics.median(seconds)
    gone_through = units * len(oracles)
    return Row(
        order,
        unit,
        units,
        epoch,
        epoch / first.epoch_seconds if first else 1.0,
        up / repeats / gone_through,
        down / repeats / gone_through,
        max(0.0, statistics.median(serving)) / gone_through * 1e6,
        len(state.dump(privates[0])) - len(state.dump(plain[0])),
        len(state.dump(server)) - len(state.dump(server.server)),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
