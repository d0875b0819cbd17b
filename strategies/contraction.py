"""Contractive compressors for the methods with error feedback, made from unbiased ones where needed."""

from compressors import Compressor
from compressors.scaled import contractive
from strategies.estimator import names_of
from thinwire.errors import ConfigError
from thinwire.layout import Layout


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
