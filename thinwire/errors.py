"""The error tree; only its leaves are raised.

ThinwireError              the command line prints it without a traceback
├── ConfigError            the operator can fix it     (exit code 2; says what is allowed)
├── WireError              the peer sent nonsense      (bad shape, index, codec, digest; too large; wrong version)
└── RoundError             the round cannot finish     (too few clients, diverged, deadline; exit code 1)
"""


class ThinwireError(Exception):
    """Base of every error that Thinwire raises on purpose; catch it to catch them all."""


class ConfigError(ThinwireError):
    """The operator asked for something impossible; the message names the value and what is allowed."""


class WireError(ThinwireError):
    """Bytes from a peer are not what the protocol allows; nothing was allocated for them and no state was touched."""


class RoundError(ThinwireError):
    """A round cannot be finished: too few replies, a diverged model, a deadline, a damaged state."""
