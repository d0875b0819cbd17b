"""One experiment per file: its problems, the methods on them, and the figures, in an ``EXPERIMENT``."""
