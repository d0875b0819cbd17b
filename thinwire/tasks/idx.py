"""Images in IDX files (MNIST, Fashion-MNIST, EMNIST) and a small convolutional network."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.random import Key
from thinwire.tasks.classification import check_fractions, hold_out
from thinwire.tasks.examples import TensorExamples
from thinwire.tasks.idx_files import find_pairs, read_pair
from thinwire.tasks.labelled import LabelledTask

TEST_SETS = ("t10k", "test")


@dataclass(frozen=True)
class IdxImages(LabelledTask):
    """Images and labels from a folder of IDX files, and two convolutions with a linear layer."""

    name: ClassVar[str] = "idx"
    path: str  # the folder; train-* and t10k-* (or test-*) files, or one set that is split by a fixed key
    size: tuple[int, int] = (28, 28)  # height and width of the images
    classes: int = 10  # labels are 0 to classes - 1
    channels: tuple[int, int] = (16, 32)  # of the two convolutions
    norm: Literal["none", "batch"] = "none"  # normalisation after each convolution; batch has buffers
    partition: Literal["dirichlet", "iid", "shards", "all", "drawn"] = "dirichlet"
    alpha: float = 0.3  # of dirichlet and drawn: concentration, small is uneven
    shards: int = 2  # of shards: pieces per client
    minimum: int = 1  # examples that every client has at least
    drawn: int = 20  # of drawn: examples of each client, from a pool that all share
    test_fraction: float = 0.2  # held out for the server where the folder has one set only
    client_test_fraction: float = 0.0  # held out of each client's own share, for evaluation on the clients

    def __post_init__(self) -> None:
        check_fractions(client_test_fraction=self.client_test_fraction)
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction = {self.test_fraction} is not in (0, 1)")
        if min(self.size) < 4:
            raise ValueError(f"size = {self.size}: two halvings need at least 4 pixels each way")
        if not 2 <= self.classes <= 256 or min(self.channels) < 1:
            raise ValueError(f"classes = {self.classes} must be in 2 to 256, channels = {self.channels} at least 1")
        self._scheme  # noqa: B018  checks alpha, shards, minimum and drawn

    def model(self) -> nn.Module:
        """Convolution, normalisation, ReLU and halving, twice; then a linear layer."""
        layers: list[nn.Module] = [nn.Unflatten(1, (1, self.size[0]))]  # (n, height, width) -> (n, 1, height, width)
        inputs = 1
        for outputs in self.channels:
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            layers += [nn.BatchNorm2d(outputs)] if self.norm == "batch" else []
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            inputs = outputs
        pixels = (self.size[0] // 4) * (self.size[1] // 4)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * pixels, self.classes))

    def _sets(self) -> tuple[TensorExamples, TensorExamples]:
        """Images uint8 of shape (n, height, width), labels int64, checked against ``size`` and ``classes``."""
        folder = Path(self.path).expanduser().absolute()
        sets = _read_folder(folder, self.test_fraction)
        for examples in sets:
            images, labels = examples.tensors
            if tuple(images.shape[1:]) != self.size:
                raise ConfigError(
                    f"{folder} holds images of {tuple(images.shape[1:])} pixels; task.size is {self.size}"
                )
            if int(labels.max()) >= self.classes:
                raise ConfigError(f"{folder} holds label {int(labels.max())}; task.classes is {self.classes}")
        return sets


@lru_cache(maxsize=4)
def _read_folder(folder: Path, test_fraction: float) -> tuple[TensorExamples, TensorExamples]:
    pairs = find_pairs(folder)
    if len(pairs) == 1:
        return hold_out(_examples(*pairs.values()), test_fraction, Key(0, "idx/test"))
    test = next((name for name in TEST_SETS if name in pairs), None)
    if "train" not in pairs or test is None:
        raise ConfigError(
            f"{folder} holds the sets {', '.join(sorted(pairs))}; expected train and t10k (or test), or one set"
        )
    return _examples(pairs["train"]), _examples(pairs[test])


def _examples(pair: tuple[Path, Path]) -> TensorExamples:
    images, labels = read_pair(pair)
    return TensorExamples(torch.from_numpy(images), torch.from_numpy(labels).to(torch.int64))
