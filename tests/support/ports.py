"""Ports for servers that a test starts, and for those that nobody does."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

_given: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on, below the range that the system hands out to outgoing connections.

    It is this test process's until that ends: no other takes it before a server of ours listens there, nor while one
    that was killed is away, and where none is ever started nobody answers.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        if port not in _given and _is_ours(port) and _is_free(port):
            _given.add(port)
            return port


def _is_ours(port: int) -> bool:
    """Take a port for this process among all that run tests on this machine: one byte of a file, locked to its end."""
    try:
        fcntl.lockf(_register(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _register() -> IO[bytes]:
    """Opened once: closing it again would give back all that is locked in it."""
    return (Path(tempfile.gettempdir()) / f"chartwire-test-ports-{os.geteuid()}").open("ab")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections: it is taken, and nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
