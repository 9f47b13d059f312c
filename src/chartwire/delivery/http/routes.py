"""How an address is reached: directly, or through the operator's proxy."""

import socket
from collections.abc import Awaitable, Callable, Sequence

from aiohappyeyeballs import AddrInfoType, start_connection

from chartwire.addresses import IPAddress

Route = Callable[[Sequence[IPAddress], int], Awaitable[socket.socket]]
"""Connects to a port at the first of several vetted addresses that can be reached; raises `OSError` if none can."""

_SECOND_ADDRESS_AFTER = 0.25  # seconds, RFC 8305 §5


async def reach_directly(addresses: Sequence[IPAddress], port: int) -> socket.socket:
    """See `Route`. A further address is tried when one fails or is slow."""
    return await start_connection(
        [_info(address, port) for address in addresses], happy_eyeballs_delay=_SECOND_ADDRESS_AFTER
    )


def _info(address: IPAddress, port: int) -> AddrInfoType:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port)
