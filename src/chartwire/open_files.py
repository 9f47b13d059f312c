"""How many files a process may have open: each connection is one."""

import resource
from contextlib import suppress

_ENOUGH = 65_536  # on some systems "as many as you like" is refused
_PER_ATTEMPT = 3  # its connection, and two that idle (`delivery/http/client.py`)
_FOR_THE_REST = 256  # the API's connections, databases, documents


def allow_open_files() -> None:
    """Ask for as many as the system lets us have: what a shell gives is often 1,024, which receivers soon use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(most_open_files(), _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS has another bound below the one it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_open_files() -> int:
    """How many a server may have open, once it has asked."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if hard == resource.RLIM_INFINITY else hard


def needed_open_files(attempts: int) -> int:
    """How many are open if so many attempts are in flight at as many receivers."""
    return _PER_ATTEMPT * attempts + _FOR_THE_REST
