"""Names for runs that stand side by side: what they are, and what tells them apart in their configurations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from thinwire.cli.recorded_run import RecordedRun

IMPORTANCE = ("uplink", "downlink", "method", "local", "optimiser", "participation", "order", "clients", "task", "seed")
HOSTS = (
    "server",
    "checkpoint",
    "evaluation",
    "record",
)  # sections that change how a run is hosted and not what it computes
DENSE = {"identity": "dense"}
WORDS = {"uplink": "up", "downlink": "down", "participation.fraction": "participation"}


def labels(runs: Sequence[RecordedRun]) -> list[str]:
    """One name for each run, all different."""
    found = [run.part("method") or run.name for run in runs]
    if len({(run.part("uplink"), run.part("downlink")) for run in runs}) > 1 or len(runs) == 1:
        found = [_with_compressors(label, run) for label, run in zip(found, runs, strict=True)]
    keys = [flat(run.options) for run in runs]
    for label in _repeated(found):
        group = [place for place, other in enumerate(found) if other == label]
        told = _telling([keys[place] for place in group])
        for place in group:
            words = [f"{_word(key)} {_text(keys[place][key])}" for key in told if keys[place].get(key) is not None]
            found[place] = ", ".join([label, *words])
    for label in _repeated(found):
        group = [place for place, other in enumerate(found) if other == label]
        names = [runs[place].name for place in group]
        if len(set(names)) < len(names):
            names = [str(runs[place].path) for place in group]
        if len(set(names)) < len(names):
            names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
        for place, name in zip(group, names, strict=True):
            found[place] = f"{label} ({name})"
    return found


def differences(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that the runs do not agree on, those first that say most."""
    every = dict.fromkeys(key for options in keys for key in options)
    found = [key for key in every if any(options.get(key) != keys[0].get(key) for options in keys)]
    told = [key for key in found if key.partition(".")[0] not in HOSTS]
    return sorted(told, key=_importance)


def _telling(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """As few of the differing keys as tell the runs apart; of no use where two are configured alike."""
    told: list[str] = []
    apart = 1
    for key in differences(keys):
        split = len({tuple(str(options.get(name)) for name in (*told, key)) for options in keys})
        if split > apart:
            told, apart = [*told, key], split
    return told


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _with_compressors(label: str, run: RecordedRun) -> str:
    up, down = (DENSE.get(name, name) for name in (run.part("uplink"), run.part("downlink")))
    if not up or not down:
        return label
    return f"{label}: {up} both ways" if up == down else f"{label}: {up} up, {down} down"


def _repeated(found: Sequence[str]) -> list[str]:
    return [label for label, times in Counter(found).items() if times > 1]


def _importance(key: str) -> int:
    section = key.partition(".")[0]
    return IMPORTANCE.index(section) if section in IMPORTANCE else len(IMPORTANCE)


def _word(key: str) -> str:
    section, _, rest = key.partition(".")
    return WORDS.get(key) or (f"{WORDS[section]} {rest}" if section in WORDS else key)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
