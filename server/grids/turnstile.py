"""How often somebody may do something: token buckets by name, in bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

MOST_NAMES = 65_536  # remembered at once; the one that was seen longest ago is forgotten first, as if it were new


class Turnstile:
    """Lets each name through ``per_minute`` times a minute, and as often at once after a quiet minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = max(1.0, per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left of a name, and since when

    def admit(self, name: str) -> bool:
        """Whether this name may pass now; if so, it has."""
        now = self._clock()
        left, since = self._left.pop(name, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        admitted = left >= 1
        self._left[name] = (left - admitted, now)
        if len(self._left) > MOST_NAMES:
            self._left.popitem(last=False)
        return admitted


class Damper:
    """Says which of many like things are told: ``per_minute`` of a name; the others are counted."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._turnstile = Turnstile(per_minute, clock)
        self._untold: OrderedDict[str, int] = OrderedDict()

    def admit(self, name: str) -> int | None:
        """None where this one is not to be told; else how many were not since the last one that was."""
        if self._turnstile.admit(name):
            return self._untold.pop(name, 0)
        self._untold[name] = self._untold.pop(name, 0) + 1
        if len(self._untold) > MOST_NAMES:
            self._untold.popitem(last=False)
        return None


def address_of(peer: str) -> str:
    """Whom connections are counted by: the host of gRPC's ``ipv4:127.0.0.1:1234``, of an IPv6 host its /64."""
    kind, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0] if kind in ("ipv4", "ipv6") else peer
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
