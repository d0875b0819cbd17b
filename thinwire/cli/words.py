"""Numbers for people."""


def amount(count: float) -> str:
    """Bytes for people: 1.23 MB (powers of 1,000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration(seconds: float | None) -> str:
    """Seconds for people: 12.3 s, 4 min 05 s, 3 h 07 min."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def times(dense: float, sent: float) -> str:
    """How many times fewer; to two digits below 1, where messages outweigh a small model."""
    if not sent:
        return "-"
    ratio = dense / sent
    return f"{ratio:.1f} x" if ratio >= 1 else f"{ratio:.2g} x"


def shown(text: object) -> str:
    """What a peer may have a say in, on one line of a terminal: control characters become escapes, and do nothing."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text))
