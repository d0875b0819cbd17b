"""What a connection needs: certificates that fit, a server that answers and lets us in, clocks that agree."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from client.fleet import SessionOptions
from client.knock import Answer, knock
from thinwire import __version__
from thinwire.cli.findings import Finding, broken, doubtful, tried, well
from thinwire.credentials import ANEW, SOON, Certificate, fits, now
from thinwire.handshake import look

SKEW_SECONDS, MUCH_SKEW_SECONDS = 5.0, 300.0


def certificate(path: Path | None, key: Path | None, authority: Path | None, what: str) -> Iterator[Finding]:
    """A certificate's time, its key, who may read that, and who signed it."""
    if path is None:
        return
    name = f"{what} certificate"
    found = Certificate.read(path, name)
    yield _time(name, found, path)
    if key is not None:
        if not fits(found, key, f"{what} key"):
            yield broken(f"{what} key", f"{key} is not the key of {path}", "give the pair that thinwire certs wrote")
        else:
            yield _mode(f"{what} key", key)
    if authority is not None and not found.signed_by(Certificate.read(authority)):
        advice = "right where clients and servers have different authorities; else take the pair of this one"
        yield doubtful(name, f"{path} was signed by {found.issuer!r}, not by {authority}", advice)
    if what == "server" and not found.hosts:
        yield broken(name, f"{path} is for no host", "thinwire certs server HOST, with the name that clients dial")


def authority(path: Path | None, what: str) -> Iterator[Finding]:
    """An authority's certificate."""
    if path is not None:
        yield _time(what, Certificate.read(path, what), path)


def _time(name: str, found: Certificate, path: Path) -> Finding:
    fault = found.fault_of_time(str(path))
    if fault is not None:
        return broken(name, fault, f"{ANEW}, or set the clock")
    left = found.ends - now()
    whom = f" for {', '.join(found.hosts)}" if found.hosts else ""
    detail = f"{found.name!r}{whom}, until {found.ends:%Y-%m-%d} ({left.days} days)"
    return doubtful(name, detail, f"{ANEW} in time") if left < SOON else well(name, detail)


def _mode(name: str, path: Path) -> Finding:
    """A private key is its owner's only."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return doubtful(name, f"{path} can be read by others (mode {mode:o})", f"chmod 600 {path}")
    return well(name, f"{path} fits, mode {mode:o}")


def server(options: SessionOptions) -> Iterator[Finding]:
    """TCP, TLS, and the fleet's own word: the server is knocked at, so a client of that name is not disturbed."""
    address = options.address
    trouble = look(address, options.ca, options.certificate, options.key, options.server_name)
    reached = trouble is None or trouble.stage == "tls"
    if trouble is not None and not reached:
        yield broken("server", trouble.reason)
        return
    yield well("server", f"{address} is reached")
    if trouble is not None:
        yield broken("tls", trouble.reason)
        return
    yield well("tls", "the server's certificate is good, and ours is taken" if options.ca else "none")
    yield from tried("hello", lambda: hello(options, knock(options)))


def hello(options: SessionOptions, answer: Answer) -> Iterator[Finding]:
    """Whether the server would let us in, its version, and its clock."""
    if not answer.welcome:
        yield broken("hello", f"{options.address} refuses {options.identity!r}: {answer.reason}", _mend(answer.reason))
        return
    if answer.reason:
        yield doubtful("hello", f"welcome, but: {answer.reason}", "the run is over; ask its operator for the next")
        return
    ours = f"thinwire {__version__}"
    if answer.software == ours:
        yield well("hello", f"{options.identity!r} is welcome; the server runs {answer.software}")
    else:
        yield doubtful("hello", f"welcome; the server runs {answer.software}, we {ours}", "install the same version")
    yield clock(answer)


def clock(answer: Answer) -> Finding:
    """Ours against the server's; certificates care."""
    skew, error = answer.skew_seconds, answer.trip_seconds / 2
    detail = f"the server's is {skew:+.2f} s off ours, give or take {error:.2f} s"
    if abs(skew) - error > MUCH_SKEW_SECONDS:
        return broken("clock", detail, "set both clocks by NTP: certificates go by them")
    if abs(skew) - error > SKEW_SECONDS:
        return doubtful("clock", detail, "set both clocks by NTP: times in logs will not fit together")
    return well("clock", detail)


def _mend(reason: str) -> str:
    """What helps against a refusal."""
    if "token" in reason:
        return "ask the server's operator for the token"
    if "common name" in reason:
        return "name the client as its certificate does: name in client.toml, or --name"
    if "identity" in reason:
        return "ask the server's operator to add this name to server.roster"
    return "ask the server's operator"


def with_identity(options: SessionOptions, folder: Path) -> SessionOptions:
    """One of the identities of a folder: which one it would be is decided when the client starts."""
    for path in sorted(folder.glob("*.pem")):
        key = path.with_suffix(".key")
        if key.exists():
            return replace(options, identity=path.stem, certificate=path, key=key)
    return options
