"""What the classification tasks share: the loss, the metrics, and the dealing out of labelled tensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thinwire.errors import ConfigError
from thinwire.partition import Scheme, divide, draw
from thinwire.random import Key, permutation
from thinwire.tasks.base import Examples
from thinwire.tasks.examples import TensorExamples

EVALUATION_BATCH = 1024


def scale(model: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs in the model's dtype; integers 0 to 255 become [0, 1]."""
    dtype = next(model.parameters()).dtype
    return inputs.to(dtype) if inputs.is_floating_point() else inputs.to(dtype) / 255


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch (inputs, int64 labels), a scalar."""
    inputs, labels = batch
    return F.cross_entropy(model(scale(model, inputs)), labels)


def evaluate_classifier(model: nn.Module, examples: Examples, device: torch.device) -> dict[str, float]:
    """Mean ``loss`` and ``accuracy`` in [0, 1] over all examples (inputs, labels), in evaluation mode."""
    was_training = model.training
    model.eval()
    loss, right = torch.zeros(2, dtype=torch.float64, device=device)
    with torch.no_grad():
        for indices in torch.split(torch.arange(len(examples), device=device), EVALUATION_BATCH):
            inputs, labels = examples.batch(indices, device)
            logits = model(scale(model, inputs))
            loss += F.cross_entropy(logits, labels, reduction="sum")
            right += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return {"loss": loss.item() / len(examples), "accuracy": right.item() / len(examples)}


def hold_out(examples: TensorExamples, fraction: float, key: Key) -> tuple[TensorExamples, TensorExamples]:
    """(the rest, the held-out ones): a share in (0, 1), rounded, of a keyed order; both parts get at least one example.

    Raises ConfigError when there are fewer than two examples.
    """
    if len(examples) < 2:
        raise ConfigError(f"{len(examples)} example(s) cannot be split into two parts")
    count = min(max(1, round(fraction * len(examples))), len(examples) - 1)
    order = permutation(key, len(examples))
    return examples.subset(order[count:]), examples.subset(order[:count])


def share(examples: TensorExamples, scheme: Scheme, partition: int, partitions: int, seed: int) -> TensorExamples:
    """One client's examples (the last tensor holds the labels). Raises ConfigError for a partition out of range."""
    if not 0 <= partition < partitions:
        raise ConfigError(f"partition {partition} is not one of 0 to {partitions - 1}")
    labels = examples.tensors[-1].cpu().numpy()
    if scheme.kind == "drawn":
        return examples.subset(draw(scheme, labels, partition, seed))
    return examples.subset(divide(scheme, labels, partitions, seed)[partition])


def check_fractions(**fractions: float) -> None:
    """Raise ValueError for a share outside [0, 1)."""
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} = {value} is not in [0, 1)")
