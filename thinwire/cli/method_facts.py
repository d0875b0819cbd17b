"""What follows from a method's code: which compressors it takes, what it keeps, what travels, what it promises."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from compressors import Compressor
from compressors import registry as compressors
from strategies.base import Federation, Method
from strategies.builder import PROBE, build_method
from strategies.descent import Descent
from strategies.estimator import Estimator
from strategies.registry import find_method
from strategies.theory import Constants, Promise
from thinwire.cli.explaining import Option, options_of, page_of, summary_of, title_of
from thinwire.errors import ConfigError

CLIENTS = 10
CONSTANTS = Constants(L=1.0, L_max=2.0, L_mean=1.5, mu=0.1, heterogeneity=1.0)  # of no problem in particular
HALF = 0.5
BUILT = frozenset({"compressor", "downlink_compressor", "channel", "optimiser", "work"})
"""Fields that other sections of a configuration fill."""

UNBIASED: Mapping[str, Any] = {"name": "natural"}
BIASED: Mapping[str, Any] = {"name": "top-k"}
DENSE: Mapping[str, Any] = {"name": "identity"}


@dataclass(frozen=True)
class Facts:
    """Of one registered method. Everything here comes out of its class."""

    name: str

    @cached_property
    def kind(self) -> type[Estimator] | type[Method]:
        """Its class. Raises ConfigError for an unknown name."""
        return find_method(self.name)

    @property
    def title(self) -> str:
        """The first line of its file."""
        return title_of(self.kind)

    @property
    def summary(self) -> str:
        """The first line of its class."""
        return summary_of(self.kind)

    @property
    def solves(self) -> str:
        """Minimisation, or variational inequalities too."""
        page = page_of(self.kind).lower()
        return "saddle points" if "variational inequalit" in page or "saddle" in page else "minimisation"

    @property
    def options(self) -> tuple[Option, ...]:
        """Those of the section ``method``."""
        return options_of(self.kind, BUILT)

    @cached_property
    def takes(self) -> str:
        """The class of compressors that fit the uplink."""
        if "compressor" not in {f.name for f in dataclasses.fields(self.kind)}:
            return "none"
        unbiased, biased = self.built(UNBIASED) is not None, self.built(BIASED) is not None
        if unbiased and biased:
            return "any"
        return "unbiased" if unbiased else "contractive" if biased else "identity"

    @cached_property
    def fits(self) -> tuple[str, ...]:
        """The registered compressors of which some form fits the uplink."""
        if self.takes == "none":
            return ()
        return tuple(sorted(name for name, kind in compressors().items() if any(map(self._admits, kind.examples()))))

    @property
    def state(self) -> str:
        """What a client keeps, and which of it the server mirrors."""
        method = self.method
        federation = federation_of()
        private = method.join(method.begin(torch.zeros(PROBE.numel), federation)[0])
        mirror = method.mirror(private)
        kept = dict(_fields(private))
        known = next((name for name, value in kept.items() if mirror is not None and value is mirror), None)
        return ", ".join(f"{name} (mirrored)" if name == known else name for name in kept) or "none"

    @property
    def up(self) -> str:
        """The payloads of an uplink."""
        return _payloads(self.method.uplink, self.method.optional, self.method.exclusive)

    @property
    def down(self) -> str:
        """The payloads of a downlink, compressed if it can be."""
        fields = {f.name for f in dataclasses.fields(self.kind)}
        if issubclass(self.kind, Estimator) or "channel" in fields:
            return "model (dense, or C by ef21-p or direct)"
        both = (self.built(self.strongest, downlink=downlink) for downlink in (BIASED, UNBIASED))
        method = next((method for method in both if method is not None), self.method)
        return _payloads(method.downlink, frozenset(), frozenset())

    def promise(self, uplink: Mapping[str, Any], participation: float = 1.0) -> str:
        """What its theory promises with full gradients, or why it refuses."""
        method = self.built(uplink, participation)
        if method is None:
            return "refused"
        try:
            theory = method.theory(CONSTANTS, federation_of(), participation)
        except ConfigError:
            return "no theory"
        return WORDS[theory.promise]

    @property
    def partial(self) -> str:
        """What is promised when half of the clients are asked, with the strongest compressor that fits."""
        return self.promise(self.strongest, HALF)

    @property
    def full(self) -> str:
        """The same when all are asked."""
        return self.promise(self.strongest)

    @property
    def strongest(self) -> Mapping[str, Any]:
        """A biased compressor where it is taken, else an unbiased one, else none."""
        return {"any": BIASED, "contractive": BIASED, "unbiased": UNBIASED}.get(self.takes, DENSE)

    @property
    def step(self) -> str:
        """Theory's step, as its documentation begins."""
        documented = inspect.getdoc(self.kind.theory) or ""
        overridden = self.kind.theory not in (Estimator.theory, Method.theory)
        return documented.split("\n\n")[0].replace("\n", " ") if overridden else "to be tuned"

    @cached_property
    def method(self) -> Method:
        """With the strongest compressor that it takes."""
        built = self.built(self.strongest)
        assert built is not None, f"{self.name} takes no compressor at all"
        return built

    def built(
        self, uplink: Mapping[str, Any], participation: float = 1.0, downlink: Mapping[str, Any] = DENSE
    ) -> Method | None:
        """With these compressors and full gradients; None where it is refused."""
        open_work = issubclass(self.kind, Estimator) or "work" in {f.name for f in dataclasses.fields(self.kind)}
        try:
            method = build_method({"name": self.name}, uplink, downlink, work="full" if open_work else "steps")
            method.check(federation_of(), participation)
        except ConfigError:
            return None
        return method

    def _admits(self, form: Compressor) -> bool:
        method = self.method
        try:
            if isinstance(method, Descent):
                estimator = dataclasses.replace(method.estimator, compressor=form)
                dataclasses.replace(method, estimator=estimator).check(federation_of(), 1.0)
            else:
                dataclasses.replace(method, compressor=form).check(federation_of(), 1.0)  # type: ignore[call-arg]
        except (ConfigError, ValueError):
            return False
        return True

    def lines(self) -> tuple[tuple[str, str], ...]:
        """For people, a line each."""
        return (
            ("solves", self.solves),
            ("compressors", f"{self.takes}: {', '.join(self.fits)}" if self.fits else self.takes),
            ("a client keeps", self.state),
            ("up", self.up),
            ("down", self.down),
            ("promise", self.full),
            ("half the clients asked", self.partial),
            ("step of theory", self.step),
        )

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "solves": self.solves,
            "compressors": list(self.fits),
            "takes": self.takes,
            "state": self.state,
            "up": self.up,
            "down": self.down,
            "promise": self.full,
            "promise_sampled": self.partial,
            "step": self.step,
            "options": [dataclasses.asdict(option) for option in self.options],
            "documentation": page_of(self.kind),
        }


WORDS = {Promise.LINEAR: "exact, linear", Promise.NEIGHBOURHOOD: "a neighbourhood", Promise.NOTHING: "nothing"}


def federation_of() -> Federation:
    """Ten clients on the probe model."""
    return Federation.uniform(PROBE, CLIENTS)


def _fields(private: Any) -> Iterator[tuple[str, Any]]:
    """The named vectors of a private state; a warm start and a version are no vectors."""
    if dataclasses.is_dataclass(private):
        for field in dataclasses.fields(private):
            if "Tensor" in str(field.type):
                yield field.name, getattr(private, field.name)


def _payloads(named: Mapping[str, Compressor], optional: frozenset[str], exclusive: frozenset[str]) -> str:
    """``update (C)``; C is what the configured compressor makes of d entries, ``dense`` is all of them."""
    forms = {name: f"{name} ({'dense' if part.name == 'identity' else 'C'})" for name, part in named.items()}
    either = " or ".join(form for name, form in forms.items() if name in exclusive)
    rest = (f"{form}, at times" if name in optional else form for name, form in forms.items() if name not in exclusive)
    return "; ".join([*([either] if either else []), *rest]) or "nothing"
