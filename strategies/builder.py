"""From plain options to a method, refusing what theory refuses."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_args, get_type_hints

from compressors import Compressor, find
from strategies.base import Federation, Method
from strategies.channels import EF21P, Channel, Dense, Direct
from strategies.descent import Descent, Work
from strategies.estimator import Estimator
from strategies.optimisers import SGD, build_optimiser
from strategies.prox import build_prox
from strategies.registry import find_method, method_names
from thinwire.config import build, join, nearest, section_of
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout

Part = TypeVar("Part")

PROBE = Layout((Entry("matrix", (64, 64)),))
"""A model on which a pair of method and compressor is judged before the real one is known."""

CHANNELS: dict[str, type[Channel]] = {kind.name: kind for kind in (Dense, EF21P, Direct)}
IDENTITY = "identity"
SGD_NAME = "sgd"
STEPS = "steps"


def build_method(
    method: Mapping[str, Any],
    uplink: Mapping[str, Any] | None = None,
    downlink: Mapping[str, Any] | None = None,
    optimiser: Mapping[str, Any] | None = None,
    work: str = STEPS,
    *,
    local: Mapping[str, Any] | None = None,
    check: bool = True,
) -> Method:
    """The method of ``{"name": ..., options}`` with its compressors and server optimiser, checked on a probe model.

    ``uplink`` and ``downlink`` name compressors (``identity`` when empty), ``downlink.channel`` how the model reaches
    the clients; ``optimiser`` a server optimiser (``sgd`` when empty). An estimator is put into a ``Descent``. A whole
    method receives what it has fields for: ``compressor`` (uplink), ``downlink_compressor`` or ``channel``,
    ``optimiser`` and ``work``; options for a part that it lacks are refused. ``local``, the options of local training,
    gives the rate where none is named (``default_rate``).
    Raises ConfigError on unknown names and keys, bad values, and pairs that theory refuses. The run's own
    ``method.check`` comes on top of it. ``check=False`` builds what theory refuses, for an experiment that shows why.
    """
    if "name" not in method:
        raise ConfigError(f"'method.name' is missing; known: {', '.join(method_names())}")
    if work not in get_args(Work):
        raise ConfigError(f"unknown work {work!r}{nearest(work, get_args(Work))}")
    kind = find_method(str(method["name"]))
    options = {key: value for key, value in method.items() if key != "name"}
    rate = default_rate(kind, optimiser or {}, options, work, local or {})
    if rate is not None and _has_own_rate(kind):
        options["rate"] = rate
    elif rate is not None:
        optimiser = {**(optimiser or {}), "rate": rate}
    parts = (uplink or {}, downlink or {}, optimiser or {})
    built = (
        _descent(kind, options, *parts, work) if issubclass(kind, Estimator) else _whole(kind, options, *parts, work)
    )
    if check:
        built.check(Federation.uniform(PROBE, 2), 1.0)
    return built


def default_rate(
    kind: type[Estimator] | type[Method],
    optimiser: Mapping[str, Any],
    options: Mapping[str, Any],
    work: str,
    local: Mapping[str, Any],
) -> float | None:
    """The rate of plain SGD (or a whole method's own ``rate``, if that is 1 by default) where the run names none.

    An update of local training carries the local rate already: 1, which needs no saying (None). A gradient does not,
    and a rate of 1 on it diverges: the local rate, as one local step would take it. For a method that normalises the
    path of its local steps, the length of that path, ``local.rate * local.steps``.
    Raises ConfigError where such a method meets other local steps than plain SGD, or ones that cannot be counted.
    """
    normalised = issubclass(kind, Method) and kind.plain_local_steps
    if normalised:
        _check_plain(kind.name, local)
    if _has_own_rate(kind):
        unset = "rate" not in options
    else:
        stepped = issubclass(kind, Estimator) or "optimiser" in {f.name for f in dataclasses.fields(kind)}
        plain = str(optimiser.get("name", SGD_NAME)).lower() == SGD_NAME
        unset = stepped and plain and not {"rate", "lr"} & set(optimiser)
    if not unset or "rate" not in local or not (normalised or work != STEPS):
        return None
    if normalised and (local.get("epochs") or "steps" not in local):
        raise ConfigError(f"method {kind.name} cannot know how many steps local.epochs are; give optimiser.rate")
    try:
        return float(local["rate"]) * (int(local["steps"]) if normalised else 1)
    except (TypeError, ValueError):
        raise ConfigError(f"local.rate = {local['rate']!r} or local.steps is no number") from None


def _check_plain(name: str, local: Mapping[str, Any]) -> None:
    """Refuse local optimisers whose path is no sum of gradients. Raises ConfigError."""
    other = str(local.get("optimiser", SGD_NAME)).lower()
    if other != SGD_NAME or local.get("momentum") or local.get("options"):
        raise ConfigError(
            f"method {name} corrects plain SGD steps; remove local.optimiser = {other!r}, local.momentum and "
            "local.options, or choose ef21"
        )


def _has_own_rate(kind: type[Estimator] | type[Method]) -> bool:
    """Whether a whole method steps by its own ``rate`` on whatever clients compute, and that is 1 by default."""
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    return issubclass(kind, Method) and "work" in fields and fields.get("rate") == 1.0


def _descent(
    kind: type[Estimator],
    options: Mapping[str, Any],
    uplink: Mapping[str, Any],
    downlink: Mapping[str, Any],
    optimiser: Mapping[str, Any],
    work: str,
) -> Descent:
    estimator = _build(kind, options, "method", compressor=build_compressor(uplink, "uplink"))
    return Descent(estimator, build_optimiser(optimiser), build_channel(downlink), cast(Work, work))


def _whole(
    kind: type[Method],
    options: dict[str, Any],
    uplink: Mapping[str, Any],
    downlink: Mapping[str, Any],
    optimiser: Mapping[str, Any],
    work: str,
) -> Method:
    fields = {f.name for f in dataclasses.fields(kind)}
    given: dict[str, Any] = {}
    if "compressor" in fields:
        given["compressor"] = build_compressor(uplink, "uplink")
    else:
        _refuse_part(kind.name, "uplink", uplink, IDENTITY)
    if "channel" in fields:
        given["channel"] = build_channel(downlink)
    elif "downlink_compressor" in fields:
        given["downlink_compressor"] = build_compressor(downlink, "downlink")
    else:
        _refuse_part(kind.name, "downlink", downlink, IDENTITY)
    if "optimiser" in fields:
        given["optimiser"] = build_optimiser(optimiser)
    elif optimiser and build_optimiser(optimiser) != SGD():  # what every run has by default
        _refuse_part(kind.name, "optimiser", optimiser, SGD_NAME)
    if "prox" in fields:
        given["prox"] = build_prox(options.pop("prox", None), "method.prox")
    if "work" in fields:
        given["work"] = work
    elif work != STEPS:
        raise ConfigError(f"method {kind.name} decides itself what a client computes; remove work = {work!r}")
    return _build(kind, options, "method", **given)


def _refuse_part(name: str, part: str, options: Mapping[str, Any], default: str) -> None:
    """A section that the method has no use for must be empty, or name the default and nothing else."""
    if options and dict(options) != {"name": default}:
        raise ConfigError(f"method {name} has no {part} of its own choosing; remove the keys {part}.*")


def build_channel(options: Mapping[str, Any], where: str = "downlink") -> Channel:
    """The channel of ``{"name": compressor, "channel": ..., options}``: dense for identity, else ef21-p."""
    compressor = build_compressor({key: value for key, value in options.items() if key != "channel"}, where)
    name = options.get("channel", Dense.name if compressor.name == IDENTITY else EF21P.name)
    if name not in CHANNELS:
        raise ConfigError(f"unknown {where}.channel {name!r}{nearest(str(name), CHANNELS)}")
    if CHANNELS[name] is not Dense:
        return build(CHANNELS[name], {}, where, compressor=compressor)
    if compressor.name != IDENTITY:
        raise ConfigError(
            f"{where}.channel 'dense' sends the model as it is; with {compressor.name!r} use 'ef21-p', or 'direct' for "
            "clients that keep no state"
        )
    return Dense()


def build_compressor(options: Mapping[str, Any] | str, where: str) -> Compressor:
    """The compressor of ``{"name": ..., options}`` or of a bare name; one inside another is given the same way."""
    options = {"name": options} if isinstance(options, str) else options
    kind = find(str(options.get("name", IDENTITY)))
    return _build(kind, {key: value for key, value in options.items() if key != "name"}, where)


def _build(kind: type[Part], options: Mapping[str, Any], where: str, **given: Any) -> Part:
    """As ``build``; an option that is a compressor is given by its name or by options, its default's where unnamed."""
    hints, plain = get_type_hints(kind), {}
    for key, value in options.items():
        name = key.replace("-", "_")
        inside = section_of(hints.get(name)) if name not in given else None
        if inside is not None and issubclass(inside, Compressor) and isinstance(value, (Mapping, str)):
            usual = _default_of(kind, name)
            if isinstance(value, Mapping) and isinstance(usual, Compressor):
                value = {"name": usual.name, **value}
            given[name] = build_compressor(value, join(where, key))
        else:
            plain[key] = value
    return build(kind, plain, where, **given)


def _default_of(kind: type[Any], name: str) -> Any:
    """The default of a dataclass's field, None where it has none."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    make = field.default_factory
    if make is dataclasses.MISSING:
        return None if field.default is dataclasses.MISSING else field.default
    return make()
