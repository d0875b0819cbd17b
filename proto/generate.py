"""Generate ``thinwire/v1`` from the sources beside this file: ``python proto/generate.py FOLDER``.

Needs grpcio-tools; `make proto` gives it an environment of its own, because its protobuf is older than the run's. A
digest of every source and every generated file goes into ``thinwire/v1/SOURCES.sha256`` (as ``sha256sum`` writes it),
so that a test can tell without the generator that none was changed without the others.
"""

import hashlib
import re
import sys
from pathlib import Path

SOURCES = Path(__file__).parent
PACKAGE = Path("thinwire") / "v1"


def generate(out: Path) -> None:
    """Write the modules, their stubs and the digests under ``out``."""
    from grpc_tools import protoc

    sources = sorted((SOURCES / PACKAGE).glob("*.proto"))
    services = [source for source in sources if re.search(r"^service ", source.read_text(encoding="utf-8"), re.M)]
    include = f"-I{SOURCES}"
    commands = [
        ["protoc", include, f"--python_out={out}", f"--pyi_out={out}", *map(str, sources)],
        ["protoc", include, f"--grpc_python_out={out}", *map(str, services)],
    ]
    for command in commands:
        if protoc.main(command) != 0:
            sys.exit("error: protoc failed; see above")
    (out / PACKAGE / "SOURCES.sha256").write_text(digests(out), encoding="utf-8")


def digests(out: Path) -> str:
    """One line for each source and each generated file, paths relative to the repository."""
    files = [(Path("proto") / PACKAGE / path.name, path) for path in (SOURCES / PACKAGE).glob("*.proto")]
    files += [(PACKAGE / path.name, path) for path in (out / PACKAGE).glob("*_pb2*.py*")]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name.as_posix()}\n" for name, path in sorted(files)
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
