"""Names to addresses, by the system's resolver."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

_THREADS = 128  # they idle; each name whose servers hang holds one until the system gives up
_KEPT_SECONDS = 10.0
_KEPT_NAMES = 1024


class Resolver(Protocol):
    """Says where a name is."""

    async def resolve(self, host: str) -> Sequence[str]:
        """The IP addresses of a name, the one to try first first; raises `OSError` or `ValueError` if there is none."""

    def forget(self, host: str) -> None:
        """None of the addresses could be connected to: ask anew the next time."""

    def close(self) -> None:
        """Give back threads."""


class SystemResolver:
    """`getaddrinfo` in threads of its own: at most one lookup of a name at a time, answers kept for ten seconds.

    A name whose servers are slow holds one thread, however many deliveries wait for it. Failures are not kept.
    """

    def __init__(self, look_up: Callable[[str], Sequence[str]] | None = None) -> None:
        """`look_up` blocks until it has the addresses of a name, and raises `OSError` or `ValueError`."""
        self._blocking = look_up or _addresses
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolver")
        self._lookups: dict[str, asyncio.Future[Sequence[str]]] = {}
        self._kept: OrderedDict[str, tuple[float, Sequence[str]]] = OrderedDict()

    async def resolve(self, host: str) -> Sequence[str]:
        """See `Resolver.resolve`."""
        until, addresses = self._kept.get(host, (0.0, ()))
        if until > asyncio.get_running_loop().time():
            return addresses
        return await asyncio.shield(self._lookups.get(host) or self._look_up(host))

    def forget(self, host: str) -> None:
        """See `Resolver.forget`."""
        self._kept.pop(host, None)

    def close(self) -> None:
        """See `Resolver.close`. A lookup that hangs ends in its own time: threads cannot be stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, host: str) -> "asyncio.Future[Sequence[str]]":
        loop = asyncio.get_running_loop()
        lookup = loop.run_in_executor(self._threads, self._blocking, host)

        def end(done: "asyncio.Future[Sequence[str]]") -> None:
            del self._lookups[host]
            if not done.cancelled() and done.exception() is None:
                self._keep(host, loop.time() + _KEPT_SECONDS, done.result())

        self._lookups[host] = lookup
        lookup.add_done_callback(end)
        return lookup

    def _keep(self, host: str, until: float, addresses: Sequence[str]) -> None:
        self._kept[host] = until, addresses
        self._kept.move_to_end(host)
        if len(self._kept) > _KEPT_NAMES:
            self._kept.popitem(last=False)


def _addresses(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
