"""The server's own model: initial weights, and evaluation on the task's test examples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord, MetricRecord
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from strategies.buffers import Buffers
from strategies.flower import from_arrays, to_arrays
from thinwire.device import choose_device, set_threads
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.run_config import RunConfig
from thinwire.tasks import Examples, Task, initial_model, load_task, trainable_layout


@dataclass
class ServerModel:
    """The task's model as the server holds it."""

    task: Task
    model: nn.Module
    layout: Layout
    buffers: Layout | None
    device: torch.device
    _examples: Examples | None = None

    @staticmethod
    def of(config: RunConfig, device: str = "auto") -> "ServerModel":
        """Build the task, its initial weights by the run's seed or from ``init``. Raises ConfigError."""
        set_threads(config.threads)
        task = load_task(config.task)
        model = initial_model(task, config.seed).to(torch.float64 if config.dtype == "float64" else torch.float32)
        if config.init:
            model.load_state_dict(_read_init(Path(config.init), model))
        sidecar = Buffers.of(model)
        return ServerModel(
            task,
            model,
            trainable_layout(model, config.task.get("trainable")),
            sidecar.layout if sidecar is not None else None,
            choose_device(device),
        )

    def most_message_bytes(self) -> int:
        """No message of an honest client or server is larger: a snapshot with mirror and frozen parameters, twice."""
        sizes: list[int] = [t.numel() * t.element_size() for t in self.model.state_dict().values()]
        return 4 * sum(sizes) + (64 << 20)

    def initial_arrays(self) -> ArrayRecord:
        """Parameters and buffers by name."""
        return to_arrays(self.model.state_dict())

    def evaluate_fn(self) -> Callable[[int, ArrayRecord], MetricRecord | None]:
        """Metrics on the test examples, as Flower wants them."""

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            return MetricRecord(dict(self.evaluate(from_arrays(arrays))))

        return evaluate

    def evaluate(self, tensors: dict[str, Tensor]) -> dict[str, float]:
        """Metrics of a model on the test examples."""
        self.model.load_state_dict(tensors)
        self.model.to(self.device)
        if self._examples is None:
            self._examples = self.task.test_examples()
        return self.task.evaluate(self.model, self._examples, self.device)


def _read_init(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Initial values from a safetensors file that has the model's names and shapes."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read init = {path}: {error}") from None
    for name, tensor in model.state_dict().items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ConfigError(f"init = {path}: tensor {name!r} has {found}; the model needs {tuple(tensor.shape)}")
    return {name: tensors[name] for name in model.state_dict()}
