"""Digits against an adversary: a saddle-point problem with a network."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thinwire.tasks.base import Examples, Task
from thinwire.tasks.classification import scale
from thinwire.tasks.digits import CLASSES, PIXELS, Digits

PERTURBATION = "perturbation"


class Attacked(nn.Module):
    """A classifier and the adversary's pictures, one for each class; called, it classifies clean images."""

    perturbation: nn.Parameter | None

    def __init__(self, network: nn.Module, with_adversary: bool) -> None:
        super().__init__()
        self.network = network
        self.register_parameter(PERTURBATION, nn.Parameter(torch.zeros(CLASSES, PIXELS)) if with_adversary else None)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (n, 10)."""
        logits: Tensor = self.network(images)
        return logits


@dataclass(frozen=True)
class AdversarialDigits(Task):
    """The digits and a network that learns to read them under the worst perturbation: min over it, max over that.

    The adversary adds a picture to all images of a class, at most ``strength`` a pixel. Under ``adversary = "shared"``
    its pictures are parameters of the model that ascend; ``strength tanh(speed perturbation)`` keeps them in bounds. It
    is one game for all clients, and a method for saddle points (masha1, masha2, extragradient) plays it: both ends of
    the wire see one vector. Under "local" each client finds the worst pictures for its batch anew, by
    ``attack_steps`` steps of the sign of the gradient; they are never communicated, and any method trains the network.
    Evaluation attacks the network in this way too, whoever the adversary was: ``robust_loss``, ``robust_accuracy``.

    Moosavi-Dezfooli et al., "Universal adversarial perturbations", CVPR 2017; Madry et al., "Towards deep learning
    models resistant to adversarial attacks", ICLR 2018.
    """

    name: ClassVar[str] = "adversarial-digits"
    hidden: tuple[int, ...] = (64,)  # widths of the hidden layers
    adversary: Literal["shared", "local"] = "shared"
    strength: float = 0.1  # most that a pixel is changed by; pixels lie in [0, 1]
    speed: float = 5.0  # of the shared adversary beside the network, which takes the same steps: its rate is speed^2
    attack_steps: int = 20  # of an attack, each of a fifth of ``strength``
    partition: Literal["dirichlet", "iid", "shards", "all"] = "dirichlet"
    alpha: float = 0.3  # of dirichlet: concentration, small is uneven
    shards: int = 2  # of shards: pieces per client
    minimum: int = 1  # examples that every client has at least
    test_fraction: float = 0.2  # held out for the server
    client_test_fraction: float = 0.0  # held out of each client's own share, for evaluation on the clients

    def __post_init__(self) -> None:
        if self.strength < 0 or not self.speed > 0 or self.attack_steps < 1:
            raise ValueError(
                f"strength = {self.strength} must be at least 0, speed = {self.speed} above 0, "
                f"attack_steps = {self.attack_steps} at least 1"
            )
        self._digits  # noqa: B018  checks the other options

    def model(self) -> nn.Module:
        """A multilayer perceptron and, where it is shared, the adversary, who starts with no change at all."""
        return Attacked(self._digits.model(), self.adversary == "shared")

    def ascends(self, parameter: str) -> bool:
        """The adversary's pictures do."""
        return parameter == PERTURBATION

    def train_examples(self, partition: int, partitions: int, seed: int) -> Examples:
        """Those of the digits."""
        return self._digits.train_examples(partition, partitions, seed)

    def test_examples(self) -> Examples:
        """Those of the digits."""
        return self._digits.test_examples()

    def client_test_examples(self, partition: int, partitions: int, seed: int) -> Examples | None:
        """Those of the digits."""
        return self._digits.client_test_examples(partition, partitions, seed)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean cross-entropy on perturbed images."""
        images, labels = batch
        images = scale(model, images)
        pictures = model.perturbation
        if isinstance(pictures, Tensor):
            change = self.strength * torch.tanh(self.speed * pictures)
        else:
            change = self._attack(model, images, labels)
        return F.cross_entropy(model(images + change[labels]), labels)

    def evaluate(self, model: nn.Module, examples: Examples, device: torch.device) -> dict[str, float]:
        """Clean ``loss`` and ``accuracy``, and both under a fresh attack on these very examples."""
        was_training = model.training
        model.eval()
        images, labels = examples.batch(torch.arange(len(examples), device=device), device)
        images = scale(model, images)
        change = self._attack(model, images, labels)
        with torch.no_grad():
            clean, attacked = (model(seen) for seen in (images, images + change[labels]))
            metrics = {
                "loss": F.cross_entropy(clean, labels).item(),
                "accuracy": _accuracy(clean, labels),
                "robust_loss": F.cross_entropy(attacked, labels).item(),
                "robust_accuracy": _accuracy(attacked, labels),
            }
        model.train(was_training)
        return metrics

    @property
    def _digits(self) -> Digits:
        return Digits(
            hidden=self.hidden,
            partition=self.partition,
            alpha=self.alpha,
            shards=self.shards,
            minimum=self.minimum,
            test_fraction=self.test_fraction,
            client_test_fraction=self.client_test_fraction,
        )

    def _attack(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The worst pictures that are found for these images, (10, 64), without a gradient; parameters keep theirs."""
        change = images.new_zeros(CLASSES, PIXELS)
        for _ in range(self.attack_steps):
            with torch.enable_grad():
                tried = change.requires_grad_(True)
                loss = F.cross_entropy(model(images + tried[labels]), labels)
                (slope,) = torch.autograd.grad(loss, tried)
            change = (change.detach() + self.strength / 5 * slope.sign()).clamp(-self.strength, self.strength)
        return change


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share in [0, 1] that is right."""
    return (logits.argmax(1) == labels).double().mean().item()
