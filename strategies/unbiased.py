"""Unbiased compressors for the methods with shifts, and what the clients of a round together make of their error."""

from compressors import Compressor
from compressors.induced import Induced
from strategies.base import Federation
from strategies.contraction import as_contraction, check_contraction
from strategies.estimator import names_of
from thinwire.errors import ConfigError
from thinwire.layout import Layout


def check_unbiased(compressor: Compressor, layout: Layout, who: str) -> None:
    """Refuse, in the name of ``who``, a biased compressor. Raises ConfigError naming what would fit."""
    if compressor.omega(layout) is None:
        raise ConfigError(
            f"{who} needs an unbiased compressor, and {compressor.name!r} is biased: choose method ef21 or ef14, or "
            f"one of {names_of(lambda form: form.omega(layout) is not None)}"
        )


def check_inner(inner: Compressor | None, layout: Layout, who: str) -> None:
    """Refuse an inner compressor that contracts nothing. Raises ConfigError."""
    if inner is not None:
        check_contraction(inner, layout, f"the inner compressor of {who}")


def around(inner: Compressor | None, compressor: Compressor) -> Compressor:
    """Q with C inside it, ``C(x) + Q(x - C(x))`` of omega (1 - alpha); Q alone where there is none.

    Both have passed their checks.
    """
    return compressor if inner is None else Induced(as_contraction(inner), compressor)


def omega_of(compressor: Compressor, layout: Layout) -> float:
    """The omega of a compressor that has passed ``check_unbiased``."""
    omega = compressor.omega(layout)
    assert omega is not None, f"{compressor} is biased"
    return omega


def joint_omega(compressor: Compressor, federation: Federation, participation: float = 1.0) -> float:
    """J of ``E|sum_{i in S} (p_i/pi) Q(a_i) - sum p_i a_i|^2 <= J sum p_i |a_i|^2``: omega/n and what sampling adds.

    Equal weights, all n clients, independent errors: omega/n. One mask for all: omega, whatever n. A cohort of s = pi n
    clients: about ((1+omega) n/s - 1)/n. Unequal weights put max p_i in the place of 1/n.
    """
    layout, sampling = federation.layout, sampling_omega(federation, participation)
    joint = compressor.joint_omega(layout, participation / largest_weight(federation))
    assert joint is not None, f"{compressor} is biased"
    return joint + sampling * (1 if compressor.independent else 1 + omega_of(compressor, layout))


def sampling_omega(federation: Federation, participation: float) -> float:
    """The same without Q: ``max p_i (1/pi - 1) n/(n-1)``, the cohort being drawn without replacement."""
    n = federation.clients
    return largest_weight(federation) * (1 / participation - 1) * n / max(1, n - 1)


def largest_weight(federation: Federation) -> float:
    """max p_i; 1/n where the weights are not known."""
    return max(federation.weights, default=1 / federation.clients)
