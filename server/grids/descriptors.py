"""How many files and connections this process may have open at once."""

import contextlib
import resource


def raise_limit(count: int) -> int:
    """Let this process open ``count`` files, as far as its hard limit goes; how many it may open then.

    The limit that a shell hands down, often 1,024, is less than a fleet behind one server needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system may refuse what its hard limit promises
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return count if soft == resource.RLIM_INFINITY else soft
