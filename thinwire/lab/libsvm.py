"""Data sets in LIBSVM's text format, also compressed: ``label index:value index:value ...`` in every line."""

import bz2
import gzip
import lzma
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError


def load_two_classes(path: Path) -> tuple[Tensor, Tensor]:
    """Features (rows, numel), dense float64, and targets -1 or 1: the smaller label is -1.

    Raises ConfigError for a file that cannot be read, is no such file, or has other than two labels.
    """
    from sklearn.datasets import load_svmlight_file  # a second of import that other experiments should not pay

    try:
        with _opened(path) as file:
            features, labels = load_svmlight_file(file)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no LIBSVM file: {error}") from None
    classes = np.unique(labels)
    if len(classes) != 2:
        raise ConfigError(f"{path} has {len(classes)} labels; logistic regression takes two")
    targets = np.where(labels == classes[1], 1.0, -1.0)
    return torch.from_numpy(features.toarray().astype(np.float64)), torch.from_numpy(targets)


def _opened(path: Path) -> AbstractContextManager[Any]:
    """By its suffix."""
    if path.suffix == ".xz":
        return lzma.open(path)
    if path.suffix == ".gz":
        return gzip.open(path)
    return bz2.open(path) if path.suffix == ".bz2" else path.open("rb")
