"""Configuration: nested keys from files, flags, the environment and Flower, and errors that say what to write."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.config import (
    build,
    environment,
    merge,
    nearest,
    put,
    read_toml,
    section_of,
    set_keys,
    to_options,
    to_toml,
    unflatten,
)
from thinwire.errors import ConfigError
from thinwire.run_config import ParticipationConfig, RunConfig


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate = {self.rate} is not above 0")


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    widths: tuple[int, ...] = ()
    folder: Path | None = None
    given: Any = None


def refused(call, *arguments, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- dataclasses from options -----------------------------------------------------------------------------------


def test_nested_keys_fill_nested_dataclasses():
    built = build(Outer, {"steps": 3, "inner": {"rate": 2}, "other": {"kind": "b"}, "widths": [1, 2]}, "")
    assert built == Outer(3, Inner(2.0), Inner(kind="b"), (1, 2))


def test_a_dash_in_a_key_is_an_underscore():
    assert RunConfig.of({"round": {"deadline-seconds": 5}}).round.deadline_seconds == 5


def test_given_fields_are_passed_as_they_are_and_are_no_options():
    marker = object()
    assert build(Outer, {"steps": 1}, "", given=marker).given is marker
    assert "unknown key 'given'" in refused(build, Outer, {"steps": 1, "given": 2}, "", given=marker)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stps": 1}, "unknown key 'stps'; did you mean 'steps'? known: folder, given, inner, other, steps, widths"),
        ({"steps": 1, "inner": {"rat": 1}}, "unknown key 'inner.rat'; did you mean 'rate'? known: kind, rate"),
        ({"steps": 1, "other": {"zzz": 1}}, "unknown key 'other.zzz'; known: kind, rate"),
        ({}, "'steps' is missing"),
        ({"steps": "many"}, "steps = 'many': input should be a valid integer"),
        ({"steps": 1.5}, "steps = 1.5: input should be a valid integer"),
        ({"steps": 1, "inner": {"rate": 0}}, "inner: rate = 0.0 is not above 0"),
        ({"steps": 1, "inner": {"kind": "c"}}, "inner.kind = 'c': input should be 'a' or 'b'"),
        ({"steps": 1, "inner": 7}, "inner = 7: input should be a dictionary or an instance of Inner"),
        ({"steps": 1, "widths": "1\n2"}, r"widths = '1\n2': input should be a valid tuple"),
    ],
)
def test_what_is_wrong_is_named_by_its_whole_key_with_what_is_allowed(options, message):
    assert message in refused(build, Outer, options, "")


def test_the_section_is_part_of_the_key():
    assert "unknown key 'uplink.stps'" in refused(build, Outer, {"stps": 1}, "uplink")


def test_the_nearest_name_is_offered_only_where_one_is_near():
    assert nearest("topk", ["top-k", "rand-k"]) == "; did you mean 'top-k'? known: rand-k, top-k"
    assert nearest("quantum", ["top-k"]) == "; known: top-k"
    assert nearest("anything", []) == ""


def test_a_section_is_found_behind_an_optional_hint():
    assert section_of(Inner) is section_of(Inner | None) is Inner
    assert section_of(int) is section_of(dict[str, Any]) is None


# -- dotted keys ------------------------------------------------------------------------------------------------


def test_setting_a_key_leaves_the_given_options_alone():
    before = {"a": {"b": 1}, "c": 2}
    assert put(before, "a.b", 3) == {"a": {"b": 3}, "c": 2}
    assert put(before, "d.e.f", 4)["d"] == {"e": {"f": 4}}
    assert before == {"a": {"b": 1}, "c": 2}


def test_a_value_has_no_keys_inside():
    assert "'c' is not a section; 'c.d' cannot be set" in refused(put, {"c": 2}, "c.d", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", 0.01),
        ("1e-3", 1e-3),
        ("3", 3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('["head.*"]', ["head.*"]),
        ('"quoted"', "quoted"),
        ("top-k", "top-k"),
        ("package.module:Class", "package.module:Class"),
        ("a = b", "a = b"),
        ("", ""),
        ("inf", float("inf")),
    ],
)
def test_an_assignment_is_read_as_toml_or_else_as_text(text, value):
    assert set_keys({}, [f"a.b = {text}"]) == {"a": {"b": value}}


def test_the_last_assignment_wins_and_what_is_none_is_refused():
    assert set_keys({"a": 1}, ["a=2", "a=3"]) == {"a": 3}
    for text in ("uplink.fraction", "=3", " = 3"):
        assert "write key=value, for example uplink.fraction=0.01" in refused(set_keys, {}, [text])


def test_flowers_flat_run_config_is_nested():
    assert unflatten({"uplink.name": "top-k", "uplink.fraction": 0.1, "rounds": 3}) == {
        "uplink": {"name": "top-k", "fraction": 0.1},
        "rounds": 3,
    }


def test_options_above_win_key_by_key():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 4}}) == {
        "a": {"b": 9, "c": 2},
        "d": {"e": 4},
    }


def test_the_environment_names_sections_by_two_underscores(monkeypatch):
    monkeypatch.setenv("THINWIRETEST_UPLINK__FRACTION", "0.1")
    monkeypatch.setenv("THINWIRETEST_ROUND__DEADLINE_SECONDS", "5")
    monkeypatch.setenv("THINWIRETEST_METHOD__NAME", "ef14")
    options = environment("THINWIRETEST_")
    assert options == {"uplink": {"fraction": 0.1}, "round": {"deadline_seconds": 5}, "method": {"name": "ef14"}}
    assert RunConfig.of(options).round.deadline_seconds == 5


# -- TOML -------------------------------------------------------------------------------------------------------


def test_a_toml_file_is_nested_options(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("rounds = 3\n[uplink]\nname = 'top-k'\nfraction = 0.05\n", encoding="utf-8")
    assert read_toml(path) == {"rounds": 3, "uplink": {"name": "top-k", "fraction": 0.05}}


@pytest.mark.parametrize("content", [b"rounds = ", b"rounds = 3\nrounds = 4", b"\xff\xfe", b"[a]\n[a]\n"])
def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path, content):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert f"{path} is not TOML: " in refused(read_toml, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert refused(read_toml, tmp_path / "no.toml") == f"cannot read {tmp_path / 'no.toml'}: No such file or directory"
    assert "Is a directory" in refused(read_toml, tmp_path)


PLAIN = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)
NESTED = st.recursive(
    PLAIN | st.lists(PLAIN | st.dictionaries(st.text(st.characters(codec="utf-8")), PLAIN, max_size=2), max_size=3),
    lambda inner: st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), NESTED, max_size=4))
def test_options_come_back_from_toml(options):
    import tomllib

    filled = _without_empty(options)  # an empty table says nothing, and TOML that we write leaves it out
    assert tomllib.loads(to_toml(filled)) == filled


def _without_empty(options):
    kept = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in options.items()}
    return {key: value for key, value in kept.items() if value != {}}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"uplink": {"name": "rand-k", "fraction": 0.25, "shared": True}, "round": {"deadline_seconds": float("inf")}},
        {"method": "fedavg", "uplink": "identity", "downlink": "identity"},
        {"task": {"name": "digits", "hidden": [8, 8]}, "init": 'C:\\models\\"x"\U0001f600\x7f.safetensors', "seed": -1},
    ],
)
def test_a_run_comes_back_from_its_own_file(tmp_path, options):
    config = RunConfig.of(options)
    path = tmp_path / "run.toml"
    path.write_text(to_toml(to_options(config)), encoding="utf-8")
    assert RunConfig.of(read_toml(path)) == config


def test_plain_values_of_a_configuration_leave_out_what_is_none():
    assert to_options(Outer(1, folder=Path("a"), widths=(1,))) == {
        "steps": 1,
        "inner": {"rate": 0.1, "kind": "a"},
        "widths": [1],
        "folder": "a",
    }
    assert to_options({"a": None, "b": [Path("c")]}) == {"b": ["c"]}


# -- a run ------------------------------------------------------------------------------------------------------


def test_without_options_a_run_is_ef21_with_top_k_on_the_digits():
    config = RunConfig.of({})
    assert config == RunConfig()
    assert (config.method["name"], config.uplink["name"], config.task["name"]) == ("ef21", "top-k", "digits")


def test_options_of_the_default_parts_add_to_their_defaults():
    config = RunConfig.of({"downlink": {"values": "fp32"}, "optimiser": {"name": "sgd", "momentum": 0.9}})
    assert config.downlink == {**RunConfig().downlink, "values": "fp32"}
    assert config.optimiser == {"name": "sgd", "momentum": 0.9}


def test_naming_another_part_drops_the_options_of_the_one_replaced():
    assert RunConfig.of({"downlink": {"name": "natural"}}).downlink == {"name": "natural"}
    assert RunConfig.of({"downlink": "identity"}).downlink == {"name": "identity"}


def test_single_minibatches_are_averaged_by_default_and_a_named_method_stays():
    assert RunConfig.of({"local": {"work": "minibatch"}}).method == {"name": "ef21-sgdm"}
    assert RunConfig.of({"local": {"work": "minibatch"}, "method": {"momentum": 0.3}}).method["momentum"] == 0.3
    assert RunConfig.of({"local": {"work": "minibatch"}, "method": "ef14"}).method == {"name": "ef14"}


# -- presets ----------------------------------------------------------------------------------------------------


def test_a_preset_is_expanded_to_its_parts_and_expanding_them_again_changes_nothing():
    config = RunConfig.of({"method": "diloco"})
    assert config.method == {"name": "fedavg"}
    assert config.uplink == config.downlink == {"name": "identity"}
    assert config.optimiser == {"name": "sgd", "rate": 0.7, "momentum": 0.9, "nesterov": True}
    assert (config.local["optimiser"], config.local["keep"], config.local["steps"]) == ("adamw", True, 500)
    assert config.participation.fraction == 1.0
    assert RunConfig.of(to_options(config)) == config


def test_every_key_of_a_preset_can_be_given_another_value():
    config = RunConfig.of(
        {
            "method": {"name": "sparse-loco", "decay": 0.9},
            "uplink": {"fraction": 0.01},
            "downlink": "natural",
            "optimiser": {"rate": 0.5},
            "local": {"steps": 7},
            "participation": {"fraction": 0.5},
        }
    )
    assert config.method == {"name": "ef14", "decay": 0.9}
    assert config.uplink == {"name": "top-k", "fraction": 0.01, "scope": "chunk", "chunk": 4096, "values": "2-bit"}
    assert config.downlink == {"name": "natural"}
    assert config.optimiser == {"name": "sgd", "rate": 0.5}
    assert (config.local["steps"], config.local["optimiser"]) == (7, "adamw")
    assert config.participation.fraction == 0.5


def test_another_compressor_drops_the_options_of_the_presets_own():
    assert RunConfig.of({"method": "sparse-loco", "uplink": "natural"}).uplink == {"name": "natural"}


def test_a_preset_leaves_the_sections_that_it_does_not_name_at_their_defaults():
    config = RunConfig.of({"method": "fed-cams"})
    assert config.uplink == RunConfig().uplink
    assert config.local == RunConfig().local


def test_the_cohort_is_the_rounded_share_and_never_empty():
    assert [ParticipationConfig(fraction=f).cohort(10) for f in (0.01, 0.25, 0.5, 1)] == [1, 2, 5, 10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runds": 3}, "unknown key 'runds'; did you mean 'rounds'?"),
        ({"participation": {"fracton": 0.1}}, "unknown key 'participation.fracton'; did you mean 'fraction'?"),
        ({"participation": {"fraction": 0}}, "participation: fraction = 0.0 is not in (0, 1]"),
        ({"participation": 0.5}, "participation = 0.5: "),
        ({"rounds": 0}, "rounds = 0 and clients = 10 must be at least 1"),
        ({"threads": -1}, "threads = -1 is below 0"),
        ({"dtype": "float16"}, "dtype = 'float16': input should be 'float32' or 'float64'"),
        ({"method": 5}, "method = 5: input should be a valid dictionary"),
        ({"round": {"retries": -1}}, "round: minimum_replies must be at least 1 and retries at least 0"),
        ({"round": {"deadline_seconds": 0}}, "round: deadline_seconds must be above 0"),
        (
            {"evaluation": {"where": "moon"}},
            "evaluation.where = 'moon': input should be 'server', 'clients', 'both' or",
        ),
        ({"evaluation": {"every": 0}}, "evaluation: every = 0 is below 1"),
        ({"checkpoint": {"every": 0}}, "checkpoint: every, keep and digest_every must be at least 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(options, message):
    assert message in refused(RunConfig.of, options)
