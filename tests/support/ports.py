"""Ports for servers that a test starts."""

import random
import socket


def free_port() -> int:
    """A port that nothing listens on, below the range that the system hands out to outgoing connections.

    A server that is killed can come back to it: nothing takes it meanwhile by chance.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
