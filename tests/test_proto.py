"""The generated wire code is what the sources generate, and says what the sources say."""

import hashlib
import itertools
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from thinwire.v1 import fleet_pb2, operator_pb2, packet_pb2, round_pb2

ROOT = Path(__file__).parents[1]
DIGESTS = ROOT / "thinwire/v1/SOURCES.sha256"
MODULES = {"fleet": fleet_pb2, "operator": operator_pb2, "packet": packet_pb2, "round": round_pb2}
HINT = "run make proto and commit the result"


def recorded():
    lines = DIGESTS.read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_no_source_and_no_generated_file_was_changed_without_the_others():
    for name, digest in recorded().items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest, f"{name} has changed: {HINT}"


def test_every_source_and_every_generated_file_is_recorded():
    found = [*(ROOT / "proto/thinwire/v1").glob("*.proto"), *(ROOT / "thinwire/v1").glob("*_pb2*.py*")]
    assert {path.relative_to(ROOT).as_posix() for path in found} == set(recorded()), HINT
    assert {path.stem for path in found if path.suffix == ".proto"} == set(MODULES)


@pytest.mark.skipif(find_spec("grpc_tools") is None, reason="needs grpcio-tools; make check generates anew in any case")
def test_generating_anew_changes_nothing(tmp_path):
    subprocess.run([sys.executable, ROOT / "proto/generate.py", tmp_path], check=True)
    for path in (tmp_path / "thinwire/v1").iterdir():
        assert path.read_bytes() == (ROOT / "thinwire/v1" / path.name).read_bytes(), f"{path.name}: {HINT}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_loaded_descriptors_have_the_fields_of_the_sources(name):
    """Independent of any digest: names and numbers of all fields, and of all values of enums."""
    text = re.sub(r"//.*", "", (ROOT / f"proto/thinwire/v1/{name}.proto").read_text())
    stated, messages = {}, []
    for line in text.splitlines():
        if opening := re.match(r"\s*(message|enum|oneof|service)\s+(\w+)", line):
            messages.append(opening[2] if opening[1] != "oneof" else messages[-1])
            stated.setdefault(messages[-1], {}) if opening[1] in ("message", "enum") else None
        elif field := re.search(r"(\w+) = (\d+);", line):
            stated[messages[-1]][field[1]] = int(field[2])
        elif line.strip() == "}":
            messages.pop()
    loaded = MODULES[name].DESCRIPTOR
    found = {m.name: {f.name: f.number for f in m.fields} for m in loaded.message_types_by_name.values()}
    found |= {e.name: {v.name: v.number for v in e.values} for e in loaded.enum_types_by_name.values()}
    assert found == stated
    assert loaded.package == "thinwire.v1"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_message_and_field_of_a_source_is_explained(name):
    lines = (ROOT / f"proto/thinwire/v1/{name}.proto").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(r"(message|enum|service) ", line) or re.match(r"  \w.* = \d+;", line) or "rpc " in line:
            assert above.lstrip().startswith("//"), f"{name}.proto: {line.strip()!r} has no comment above it"
