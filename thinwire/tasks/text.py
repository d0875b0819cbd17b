"""A language model on any text: the next character or word, by an LSTM; at first on a text of scikit-learn's."""

import lzma
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thinwire.errors import ConfigError
from thinwire.tasks.base import Examples, Task
from thinwire.tasks.classification import check_fractions
from thinwire.tasks.examples import TensorExamples

EVALUATION_BATCH = 64
UNKNOWN = "<unk>"


class LanguageModel(nn.Module):
    """Embedding, LSTM, and a score for every token."""

    def __init__(self, tokens: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.scores = nn.Linear(hidden, tokens)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores (batch, length, tokens) of what follows each token (int64, batch x length)."""
        scores: Tensor = self.scores(self.lstm(self.embedding(inputs))[0])
        return scores


@dataclass(frozen=True)
class Text(Task):
    """The next token of a text, cut into stretches that clients share out in the text's own order."""

    name: ClassVar[str] = "text"
    path: str = ""  # a text file, plain or .xz; empty: the descriptions of scikit-learn's data sets, 43 kB of English
    level: Literal["character", "word"] = "character"  # what a token is
    vocabulary: int = 2000  # of words: the most frequent ones, the others are one unknown word
    length: int = 35  # tokens of a stretch
    embedding: int = 32  # width
    hidden: int = 64  # width of the LSTM
    layers: int = 1  # of the LSTM
    test_fraction: float = 0.1  # the text's end, held out for the server

    def __post_init__(self) -> None:
        check_fractions(test_fraction=self.test_fraction)
        if self.level not in ("character", "word"):
            raise ValueError(f"level = {self.level!r}; allowed: character, word")
        if (
            min(self.vocabulary - 1, self.length, self.embedding, self.hidden, self.layers) < 1
            or not self.test_fraction
        ):
            raise ValueError(
                f"vocabulary = {self.vocabulary} must be at least 2, length = {self.length}, embedding = "
                f"{self.embedding}, hidden = {self.hidden} and layers = {self.layers} at least 1, test_fraction above 0"
            )

    def model(self) -> nn.Module:
        """An LSTM over the tokens of the text."""
        return LanguageModel(self._tokens[1], self.embedding, self.hidden, self.layers)

    def train_examples(self, partition: int, partitions: int, seed: int) -> Examples:
        """A client's consecutive stretches: inputs and what follows them, int64 (n, length) each."""
        inputs, targets = self._stretches[0]
        if not 0 <= partition < partitions <= len(inputs):
            raise ConfigError(
                f"partition {partition} of {partitions}; the text has {len(inputs)} stretches to share out"
            )
        edges = [share * len(inputs) // partitions for share in range(partitions + 1)]
        own = slice(edges[partition], edges[partition + 1])
        return TensorExamples(inputs[own], targets[own])

    def test_examples(self) -> Examples:
        """The stretches at the text's end."""
        return TensorExamples(*self._stretches[1])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean cross-entropy per token; its exponential is the perplexity."""
        inputs, targets = batch
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def evaluate(self, model: nn.Module, examples: Examples, device: torch.device) -> dict[str, float]:
        """``loss`` and ``accuracy`` per token, and ``perplexity``."""
        was_training = model.training
        model.eval()
        loss, right = torch.zeros(2, dtype=torch.float64, device=device)
        with torch.no_grad():
            for indices in torch.split(torch.arange(len(examples), device=device), EVALUATION_BATCH):
                inputs, targets = examples.batch(indices, device)
                scores = model(inputs).flatten(0, 1)
                loss += F.cross_entropy(scores, targets.flatten(), reduction="sum")
                right += (scores.argmax(1) == targets.flatten()).sum()
        model.train(was_training)
        total = len(examples) * self.length
        mean = loss.item() / total
        return {"loss": mean, "accuracy": right.item() / total, "perplexity": float(torch.tensor(mean).exp())}

    @property
    def _tokens(self) -> tuple[Tensor, int]:
        return _tokens(self.path, self.level, self.vocabulary)

    @property
    def _stretches(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Training and test stretches."""
        tokens = self._tokens[0]
        count = (len(tokens) - 1) // self.length
        if count < 2:
            raise ConfigError(f"the text has {len(tokens)} tokens; two stretches of length = {self.length} need more")
        inputs = tokens[: count * self.length].view(count, self.length)
        targets = tokens[1 : count * self.length + 1].view(count, self.length)
        kept = count - min(max(1, round(self.test_fraction * count)), count - 1)
        return (inputs[:kept], targets[:kept]), (inputs[kept:], targets[kept:])


@cache
def _tokens(path: str, level: str, vocabulary: int) -> tuple[Tensor, int]:
    """The text as numbers, and how many different ones there are; frequent tokens have small numbers."""
    text = _read(path) if path else _bundled()
    pieces: list[str] = list(text) if level == "character" else text.split()
    most = vocabulary - 1 if level == "word" else len(pieces)
    kept = [piece for piece, _ in sorted(Counter(pieces).items(), key=lambda item: (-item[1], item[0]))][:most]
    number = {piece: place for place, piece in enumerate(kept)}
    unknown = number.setdefault(UNKNOWN, len(number)) if level == "word" else 0
    return torch.tensor([number.get(piece, unknown) for piece in pieces], dtype=torch.int64), len(number)


def _read(path: str) -> str:
    file = Path(path).expanduser()
    try:
        data = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
        return data.decode("utf-8")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the text {path!r}: {error}") from None


def _bundled() -> str:
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "descr"
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.rst")))
