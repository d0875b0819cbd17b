"""What follows from a compressor's code: its class and constants, whether they are exact, what a message costs."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from compressors import Compressor, find
from strategies.problems import gaussian
from thinwire.cli.explaining import Option, options_of, summary_of, title_of
from thinwire.layout import Entry, Layout
from thinwire.random import Key

PROBE = Layout((Entry("matrix", (100, 100)),))
"""The model that constants are stated for: d = 10,000."""

KEY = Key(0, "facts")


@dataclass(frozen=True)
class CompressorFacts:
    """Of one registered compressor. Everything here comes out of its class."""

    name: str

    @cached_property
    def kind(self) -> type[Compressor]:
        """Its class. Raises ConfigError for an unknown name."""
        return find(self.name)

    @cached_property
    def form(self) -> Compressor:
        """With its default options; its first example where it is built around others."""
        try:
            return self.kind()
        except TypeError:
            return self.kind.examples()[0]

    @property
    def title(self) -> str:
        """The first line of its file."""
        return title_of(self.kind)

    @property
    def summary(self) -> str:
        """The first line of its class."""
        return summary_of(self.kind)

    @property
    def options(self) -> tuple[Option, ...]:
        """Those of a section ``uplink`` or ``downlink``."""
        return options_of(self.kind)

    @property
    def classes(self) -> str:
        """Unbiased or contractive, in each of its forms."""
        forms = [self.form, *self.kind.examples()]
        unbiased = any(form.omega(PROBE) is not None for form in forms)
        contractive = any(form.alpha(PROBE) is not None for form in forms)
        return " or ".join(name for name, has in (("unbiased", unbiased), ("contractive", contractive)) if has)

    @property
    def omega(self) -> float | None:
        """On the probe."""
        return self.form.omega(PROBE)

    @property
    def alpha(self) -> float | None:
        """On the probe."""
        return self.form.alpha(PROBE)

    @property
    def exact(self) -> bool:
        """Whether some form states a vector on which its constant is attained."""
        return any(form.worst(PROBE) is not None for form in (self.form, *self.kind.examples()))

    @cached_property
    def bits(self) -> float:
        """Bits per entry of a Gaussian vector, measured."""
        vector: Tensor = gaussian(KEY, PROBE.numel).to(torch.float32)
        return 8 * self.form.encode(vector, PROBE, KEY).payload.size / PROBE.numel

    @property
    def constant(self) -> str:
        """Omega or alpha in words."""
        stated = [
            f"{name} = {value:.4g}"
            for name, value in (("omega", self.omega), ("alpha", self.alpha))
            if value is not None
        ]
        return ", ".join(stated)

    def lines(self) -> tuple[tuple[str, str], ...]:
        """For people, a line each."""
        bytes_ = (
            "the same on every device"
            if self.kind.reproducible
            else "depend on the device; what they decode to does not"
        )
        return (
            ("class", self.classes),
            ("constant", f"{self.constant} for {self.form!r} on a matrix of 100 x 100"),
            ("", "exact: attained by some vector" if self.exact else "a bound"),
            ("size", f"{self.bits:.3g} bits an entry on a Gaussian of that size, everything counted"),
            ("bytes", bytes_),
        )

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "class": self.classes,
            "omega": self.omega,
            "alpha": self.alpha,
            "exact": self.exact,
            "bits_per_coordinate": self.bits,
            "form": repr(self.form),
            "reproducible": self.kind.reproducible,
            "options": [vars(option) for option in self.options],
        }
