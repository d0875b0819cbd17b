"""What a run needs of this machine: versions, threads, GPU, disk, ports, Docker."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile

from packaging.requirements import Requirement

import thinwire
from thinwire.cli.findings import Finding, broken, doubtful, well
from thinwire.cli.words import amount
from thinwire.wire.endpoint import host_and_port

SHOWN = ("torch", "flwr", "grpcio", "protobuf")  # whose versions people ask for
LEAST_PYTHON = (3, 11)
LITTLE_BYTES, TOO_LITTLE_BYTES = 5 << 30, 200 << 20
SLOW_BYTES_PER_SECOND = 20e6  # a checkpoint of 25 million parameters would take 10 s
TRIAL_BYTES = 16 << 20
SKEW_SECONDS = 2.0  # between the clocks of this machine and of its disk
DOCKER_SECONDS = 10.0


def versions() -> Iterator[Finding]:
    """Python and the packages, against what Thinwire's own metadata ask for, and the pins of a source tree."""
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= LEAST_PYTHON:
        yield well("python", f"{python} ({sys.executable})")
    else:
        yield broken("python", python, "install Python 3.11 or newer")
    yield well("thinwire", f"{thinwire.__version__} ({Path(thinwire.__file__).parent})")
    pins = _pins()
    wrong = []
    for requirement in map(Requirement, metadata.requires("thinwire") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        finding = _version(requirement, pins.get(requirement.name.lower()))
        if requirement.name in SHOWN:
            yield finding
        elif finding.state != "ok":
            wrong.append(finding)
    yield from wrong or [well("other packages", "all that are needed are there, in versions that fit")]


def _version(requirement: Requirement, pin: str | None) -> Finding:
    """One package."""
    name, wanted = requirement.name, str(requirement.specifier)
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return broken(name, f"not installed; needed: {wanted}", f"pip install '{requirement}'")
    if not requirement.specifier.contains(found, prereleases=True):
        return broken(name, f"{found}; needed: {wanted}", f"pip install '{requirement}'")
    if pin is not None and found.partition("+")[0] != pin:
        advice = "pip install -c constraints.txt -e . for the versions that the tests run with"
        return doubtful(name, f"{found}; constraints.txt pins {pin}", advice)
    return well(name, f"{found} (needed: {wanted}{'' if pin is None else f'; pinned: {pin}'})")


def _pins() -> dict[str, str]:
    """The versions of constraints.txt, where this is a source tree."""
    path = Path(thinwire.__file__).parent.parent / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.partition("==") for line in lines if not line.startswith("#"))
    return {name.strip().lower(): version.strip() for name, equals, version in pairs if equals}


def threads() -> Finding:
    """The cores that this process may use, and what limits torch's threads."""
    import torch

    cores, wanted = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "")
    found = f"{cores} cores for this process, torch would take {torch.get_num_threads()}"
    if wanted.isdigit() and int(wanted) > cores:
        return doubtful("threads", f"{found} (OMP_NUM_THREADS = {wanted})", f"set OMP_NUM_THREADS to {cores} at most")
    return well("threads", found + (f" (OMP_NUM_THREADS = {wanted})" if wanted else ""))


def gpu() -> Finding:
    """What torch sees, against what the driver does."""
    import torch

    if torch.cuda.is_available():
        kinds = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return well("gpu", ", ".join(f"{kind.name}, {amount(kind.total_memory)}" for kind in kinds))
    if Path("/dev/nvidiactl").exists():
        build = torch.version.cuda or "no CUDA"
        advice = f"this PyTorch is built for {build}: install one for the driver's CUDA, or set device = cpu"
        return doubtful("gpu", "the machine has one, PyTorch sees none", advice)
    return well("gpu", "none; the CPU does the work")


def disk(folder: Path) -> Iterator[Finding]:
    """Room, write speed and clock of the disk where run directories go; the folder itself is not made."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    room = f"{amount(free)} free for {folder}"
    if free < TOO_LITTLE_BYTES:
        yield broken("disk room", room, "make room, or choose another folder with --out; a full disk stops a run")
    elif free < LITTLE_BYTES:
        yield doubtful("disk room", room, "a checkpoint takes about 3 times the model, and 2 are kept: make room")
    else:
        yield well("disk room", room)
    try:
        speed, skew = _write(place)
    except OSError as error:
        yield broken("disk", f"cannot write in {place}: {error.strerror}", "choose another folder with --out")
        return
    written = f"{amount(speed)}/s, synced"
    if speed < SLOW_BYTES_PER_SECOND:
        yield doubtful("disk speed", written, "every round is synced to disk: choose a faster one with --out")
    else:
        yield well("disk speed", written)
    if abs(skew) > SKEW_SECONDS:
        yield doubtful("disk clock", f"the disk's clock is {skew:+.1f} s off", "set the clocks by NTP, here and there")


def _write(folder: Path) -> tuple[float, float]:
    """Bytes per second of a synced write, and the disk's clock less ours."""
    with NamedTemporaryFile(dir=folder, prefix=".thinwire-doctor-") as file:
        block = os.urandom(1 << 20)
        started = time.perf_counter()
        for _ in range(TRIAL_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        seconds = time.perf_counter() - started
        os.utime(file.name)
        return TRIAL_BYTES / max(seconds, 1e-9), os.stat(file.name).st_mtime - time.time()


def port(address: str, what: str) -> Finding:
    """Whether a server could listen here."""
    host, number = host_and_port(address)
    if number == 0:
        return well(f"{what} port", "any free one")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, number), family=family):
            return well(f"{what} port", f"{address} is free")
    except socket.gaierror as error:
        return broken(f"{what} port", f"{host}: {error.strerror}", "listen on an address of this machine")
    except OSError as error:
        advice = "stop what listens there (ss -ltnp shows it), or choose another with --address"
        return broken(f"{what} port", f"cannot listen on {address}: {os.strerror(error.errno or 0)}", advice)


def docker() -> Finding:
    """The engine, for docker compose; a run needs none."""
    if shutil.which("docker") is None:
        return well("docker", "not installed; only docker compose needs it")
    command = ["docker", "version", "--format", "{{json .Server.Version}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_SECONDS)
    except subprocess.TimeoutExpired:
        return doubtful("docker", "the engine does not answer", "restart it, if you want docker compose")
    if done.returncode == 0 and done.stdout.strip() not in ("", "null"):
        return well("docker", f"engine {json.loads(done.stdout)}")
    reason = (done.stderr.strip().splitlines() or ["no engine"])[-1]
    return doubtful("docker", reason[:200], "start the engine, if you want docker compose")
