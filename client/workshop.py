"""What the clients of one process share (task, method, model, device), and what each has of its own (its examples)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from client.oracles import LocalOptions, TorchModel, TorchOracle
from compressors.base import DTYPES
from strategies.base import Federation, Oracle
from strategies.builder import build_method
from strategies.bundle import Bundle, Replica
from strategies.flower import LOCAL_ONLY
from strategies.ordered import in_order
from thinwire.config import build, merge
from thinwire.device import choose_device, set_threads
from thinwire.errors import WireError
from thinwire.run_config import RunConfig
from thinwire.tasks import initial_model, load_task, trainable_layout
from thinwire.wire.exchange import digest


class Workshop:
    """Task, method, model and device of a run, opened once per process."""

    def __init__(self, configuration: str, clients: int, local_task: Mapping[str, Any], device: str) -> None:
        """``configuration`` is the server's, as JSON. Raises ConfigError when it does not fit this machine."""
        self.config = _read(configuration, clients)
        options = merge_task(self.config.task, local_task)
        set_threads(self.config.threads)
        self.task = load_task(options, [str(local_task.get("name", ""))])
        local = build(LocalOptions, self.config.local, "local")
        dtype = DTYPES[self.config.dtype]
        module = initial_model(self.task, self.config.seed)
        layout = trainable_layout(module, options.get("trainable"))
        self.model = TorchModel(self.task, module, layout, dtype, choose_device(device), local)
        parts = self.config.method, self.config.uplink, self.config.downlink, self.config.optimiser
        method = build_method(*parts, local.work, local=self.config.local)
        self.federation = Federation(layout, clients, self.config.seed, dtype)
        self.bundle = Bundle.of(in_order(method, self.config.order, local.work), self.model.buffer_layout)
        start = torch.zeros(layout.numel, dtype=dtype)
        buffers = self.model.buffer_layout
        zeros = None if buffers is None else torch.zeros(buffers.numel, dtype=dtype)
        self.template: Replica = self.bundle.begin(start, zeros, self.federation)[0]

    def workplace(self, index: int) -> "TorchWorkplace":
        """The place of one client."""
        examples = self.task.train_examples(index, self.config.clients, self.config.seed)
        return TorchWorkplace(self, index, TorchOracle(self.model, examples), len(examples))


class Workshops:
    """The workshops that are open in this process: one for each configuration, usually one."""

    def __init__(self, local_task: Mapping[str, Any], device: str) -> None:
        self._local_task = dict(local_task)
        self._device = device
        self._open: dict[tuple[str, int], Workshop] = {}

    def open(self, configuration: str, clients: int) -> Workshop:
        """Open, or find open; an older one is closed."""
        key = configuration, clients
        if key not in self._open:
            self._open = {key: Workshop(configuration, clients, self._local_task, self._device)}
        return self._open[key]


@dataclass
class TorchWorkplace:
    """One client's place: its oracle over its own examples."""

    workshop: Workshop
    index: int
    torch_oracle: TorchOracle
    examples: int

    @property
    def bundle(self) -> Bundle:
        """The method and its sidecars."""
        return self.workshop.bundle

    @property
    def federation(self) -> Federation:
        """The federation as a client knows it, without weights."""
        return self.workshop.federation

    @property
    def template(self) -> Replica:
        """A replica of the right structure."""
        return self.workshop.template

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.workshop.model.device

    @property
    def oracle(self) -> Oracle:
        """All that a method knows of the task."""
        return self.torch_oracle

    def enter(self, buffers: Tensor | None) -> None:
        """Begin an answer: the model takes the replica's buffers."""
        if buffers is not None:
            self.torch_oracle.buffers = buffers

    def metrics(self) -> dict[str, float]:
        """Numbers of the last answer."""
        return self.torch_oracle.metrics

    def frozen_digest(self) -> bytes:
        """Digest of the frozen parameters."""
        frozen = self.workshop.model.frozen()
        return digest(save_tensors({n: t.cpu().contiguous() for n, t in frozen.items()}) if frozen else b"")

    def load_frozen(self, packed: bytes) -> None:
        """Take the server's frozen parameters. Raises WireError when they are not this model's."""
        try:
            self.workshop.model.load_frozen(load_tensors(packed))
        except (SafetensorError, ValueError, KeyError) as error:
            raise WireError(f"the server's frozen parameters do not fit this model: {error}") from None

    def evaluate(self, x: Tensor, buffers: Tensor | None) -> tuple[int, dict[str, float]]:
        """Metrics of a model on this client's held-out examples; (0, {}) when it has none."""
        config = self.workshop.config
        examples = self.workshop.task.client_test_examples(self.index, config.clients, config.seed)
        if examples is None or len(examples) == 0:
            return 0, {}
        return len(examples), self.torch_oracle.evaluate(x, buffers, examples)


def merge_task(server: Mapping[str, Any], local: Mapping[str, Any]) -> dict[str, Any]:
    """The server's task options with this machine's over them; places on this machine are its own settings only."""
    taken = {key: value for key, value in server.items() if key not in LOCAL_ONLY}
    return merge(taken, local)


def _read(configuration: str, clients: int) -> RunConfig:
    try:
        options = json.loads(configuration)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the server's configuration is not JSON: {error}") from None
    if not isinstance(options, dict):
        raise WireError("the server's configuration is not an object")
    return RunConfig.of({**options, "clients": clients})
