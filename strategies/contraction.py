"""Contractive compressors for the methods with error feedback, made from unbiased ones where needed."""

import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

from compressors import Compressor
from compressors.scaled import contractive
from strategies.estimator import names_of
from strategies.theory import Constants
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.random import Key


def as_contraction(compressor: Compressor) -> Compressor:
    """The compressor itself where it is contractive; an unbiased one scaled by 1/(1+omega). Raises ConfigError."""
    return contractive(compressor)


def has_constant(compressor: Compressor, layout: Layout) -> bool:
    """Whether it is contractive or unbiased, and so contractive once scaled."""
    return compressor.omega(layout) is not None or compressor.alpha(layout) is not None


def check_contraction(compressor: Compressor, layout: Layout, who: str) -> None:
    """Refuse, in the name of ``who``, one that is neither. Raises ConfigError naming those that fit."""
    if not has_constant(compressor, layout):
        raise ConfigError(
            f"{who} needs a contractive or unbiased compressor, and {compressor.name!r} is neither; choose one of "
            f"{names_of(lambda form: has_constant(form, layout))}"
        )


def alpha_of(compressor: Compressor, layout: Layout) -> float:
    """The alpha, once scaled where needed, of a compressor that has passed ``check_contraction``."""
    alpha = as_contraction(compressor).alpha(layout)
    assert alpha is not None, f"{compressor} is not contractive for every layout"
    return alpha


def feedback_constants(alpha: float, participation: float = 1.0) -> tuple[float, float]:
    """theta and beta of EF21: ``|g_i+ - D_i+|^2 <= (1 - theta)|g_i - D_i|^2 + beta |D_i+ - D_i|^2`` on average.

    For a client that is asked with probability ``participation`` those of the extended analysis.
    """
    root, p = math.sqrt(1 - alpha), participation
    theta = alpha / (1 + root)  # 1 - root, also for the smallest alpha
    beta = (1 - alpha) / theta
    if p == 1:
        return theta, beta
    rho = theta * p / (2 * (1 - p))
    return theta * p / 2, beta * p + (1 + 1 / rho) * (1 - p)


def ef21_rate(constants: Constants, theta: float, beta: float) -> float:
    """``1/(L + L_mean sqrt(beta/theta))``, and at most theta/(2 mu) under strong convexity."""
    rate = 1 / (constants.L + constants.L_mean * math.sqrt(beta / theta))
    return min(rate, theta / (2 * constants.mu)) if constants.mu else rate


@dataclass(frozen=True)
class _WatchedKey(Key):
    """A key that notes when something is drawn from it, or from one derived from it."""

    drawn: list[str] = field(default_factory=list, compare=False)

    def at(self, purpose: str | None = None, **coordinates: Any) -> "_WatchedKey":
        """Watched too, on the same list."""
        return replace(self, **vars(super().at(purpose, **coordinates)))

    def digest(self) -> bytes:
        """As any key's."""
        self.drawn.append(self.purpose)
        return super().digest()


def is_deterministic(compressor: Compressor, layout: Layout) -> bool:
    """Whether C(x) is a function of x alone: found out by compressing a vector with a key that is watched.

    So no compressor need declare it, and none around another can get it wrong.
    """
    key = _WatchedKey(0, "probe")
    compressor.encode(torch.sin(torch.arange(1, layout.numel + 1)), layout, key)
    return not key.drawn


def check_deterministic(compressor: Compressor, layout: Layout, who: str) -> None:
    """Refuse, in the name of ``who``, a compressor that draws at random. Raises ConfigError naming those that fit."""
    if not is_deterministic(compressor, layout):
        raise ConfigError(
            f"{who} compares what a compressor makes of two vectors, and {compressor.name!r} draws at random; choose a "
            f"deterministic one ({_deterministic_names()})"
        )


@cache
def _deterministic_names() -> str:
    """Of the contractive ones, on a matrix that is large enough to tell."""
    layout = Layout((Entry("matrix", (32, 16)),))
    return names_of(lambda form: has_constant(form, layout) and is_deterministic(form, layout))
