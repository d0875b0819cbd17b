"""The pages of docs/ are held to the code: limits, cited tests, and randomness by the book."""

import importlib
import re
from pathlib import Path

import pytest

import thinwire.flower  # noqa: F401  keeps Flower quiet before the modules of the hosts import it
from thinwire.random import Key

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
LIMIT = re.compile(r"^\| [^|]+ \| `([\w.]+)\.(\w+)` \| ([\d,]+) \|$", re.M)


def test_the_limits_on_the_page_are_those_of_the_code():
    limits = LIMIT.findall((ROOT / "docs/wire.md").read_text(encoding="utf-8"))
    assert len(limits) == 31
    for module, name, value in limits:
        assert getattr(importlib.import_module(module), name) == int(value.replace(",", "")), f"{module}.{name}"


def test_the_versions_on_the_page_are_those_of_the_code():
    assert importlib.import_module("thinwire.wire.exchange").PROTOCOL == 1
    assert importlib.import_module("thinwire.wire.frames").PROTOCOL == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_and_file_that_a_page_cites_exists(page):
    text = page.read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for name in set(re.findall(r"`(test_\w+)`", text)):
        assert f"def {name}(" in sources, f"{page.name} cites {name}"
    for path in set(re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)):
        assert (page.parent / path).exists(), f"{page.name} links to {path}"
    for path in set(
        re.findall(r"`((?:thinwire|compressors|strategies|client|server|tests|docs|proto)/[\w./]+)`", text)
    ):
        assert (ROOT / path).exists() or path in ("compressors/plus_minus.py", "strategies/smoothed.py"), path


def philox_block(key: tuple[int, int], counter: int) -> list[int]:
    """One block of Philox4x64-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011."""
    mask = (1 << 64) - 1
    x = [(counter >> (64 * i)) & mask for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(second >> 64) ^ x[1] ^ k0, second & mask, (first >> 64) ^ x[3] ^ k1, first & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return x


def test_the_words_are_philox_by_the_book():
    key = Key(2024, "update/mask", round=5, client=1, tensor=2, direction="up")
    digest = key.digest()
    halves = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    expected = [word for counter in (1, 2, 3) for word in philox_block(halves, counter)]
    assert [int(word) for word in key.words(12)] == expected
