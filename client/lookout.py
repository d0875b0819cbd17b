"""Why a client's connection does not come about, in words that help; and when trying again cannot."""

from dataclasses import dataclass, replace
from pathlib import Path

from client.stream import Verdict
from thinwire.errors import ConfigError
from thinwire.handshake import look

SURE = 2  # times in a row that something lasting is seen: a server that is just being stopped looks alike once


@dataclass
class Lookout:
    """Looks where gRPC did not get through, by a handshake of its own."""

    address: str
    ca: Path | None
    certificate: Path | None
    key: Path | None
    server_name: str = ""
    ever_opened: bool = False  # a server that took us once may be mended: it is waited for
    _seen: int = 0

    def explained(self, verdict: Verdict) -> Verdict:
        """The verdict with what was seen. Before a first opening, raises ConfigError for what a person must mend."""
        self.ever_opened |= verdict.opened
        if verdict.opened or not verdict.trouble.startswith("UNAVAILABLE"):
            self._seen = 0
            return verdict
        trouble = look(self.address, self.ca, self.certificate, self.key, self.server_name)
        if trouble is None:
            self._seen = 0
            return verdict
        self._seen = self._seen + 1 if trouble.lasting else 0
        if self._seen >= SURE and not self.ever_opened:
            raise ConfigError(f"no connection to {self.address}: {trouble.reason}")
        return replace(verdict, trouble=trouble.reason)
