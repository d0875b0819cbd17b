"""What the command line says of a method comes out of the method's own file."""

import json
import sys

import pytest

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from strategies.registry import method_names
from thinwire.cli import main
from thinwire.cli.method_facts import Facts


def thinwire_says(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["thinwire", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_a_method_is_explained_with_its_paper_its_rule_and_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = thinwire_says(capsys, monkeypatch, "methods", "ef14")
    for text in ("Seide, Fu, Droppo", "    server:         G = sum", "decay", "the share of the residual", "top-k"):
        assert text in page


def test_a_method_is_explained_to_scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = json.loads(thinwire_says(capsys, monkeypatch, "methods", "ef21", "--json"))
    assert facts["takes"] == "any"
    assert {"top-k", "rand-k", "natural"} <= set(facts["compressors"])
    assert facts["state"] == "g (mirrored)"
    assert facts["promise"] == facts["promise_sampled"] == "exact, linear"


def test_facts_follow_from_what_a_method_refuses() -> None:
    fedavg = Facts("fedavg")
    assert fedavg.takes == "unbiased"
    assert "top-k" not in fedavg.fits
    assert fedavg.state == "none"
    assert fedavg.full == "a neighbourhood"


@pytest.mark.parametrize("name", method_names())
def test_every_option_of_every_method_says_what_it_means(name: str) -> None:
    facts = Facts(name)
    assert facts.title
    assert facts.summary
    assert facts.takes == "none" or "identity" in facts.fits
    for option in facts.options:
        assert option.kind
        assert option.default
        assert option.meaning, f"{name}: {option.name} has no comment behind it"


def test_a_preset_is_listed_with_the_methods_and_shown_as_the_sections_that_it_stands_for(capsys, monkeypatch):
    rows = {row["name"]: row for row in json.loads(thinwire_says(capsys, monkeypatch, "methods", "--json"))}
    assert rows["diloco"]["options"]["optimiser"]["nesterov"] is True
    page = thinwire_says(capsys, monkeypatch, "methods", "diloco")
    assert 'optimiser = "adamw"' in page
    assert "[optimiser]" in page
    facts = json.loads(thinwire_says(capsys, monkeypatch, "methods", "diloco", "--json"))
    assert facts["sections"]["method"] == {"name": "fedavg"}
