"""Drawn data of w8a's kind, for when there is no file: sparse binary rows, few of them positive."""

import numpy as np
import torch
from torch import Tensor

from strategies.problems import gaussian
from thinwire.random import Key, uniforms

POSITIVE = 0.03  # share of the positive class in w8a
FREQUENT, RARE = 0.35, 2e-4  # shares of the rows in which its most and least frequent features are 1


def binary_rows(seed: int, rows: int, numel: int) -> tuple[Tensor, Tensor]:
    """Data of w8a's kind: sparse binary features of very different frequency, and few positive labels."""
    key = Key(seed, "binary rows")
    shares = torch.from_numpy(np.geomspace(FREQUENT, RARE, numel))
    drawn = torch.from_numpy(uniforms(key.at("features"), rows * numel)).view(rows, numel)
    features = (drawn < shares).double()
    margins = features @ gaussian(key.at("truth"), numel) + gaussian(key.at("noise"), rows) / 2
    return features, torch.where(margins > torch.quantile(margins, 1 - POSITIVE), 1.0, -1.0).double()
