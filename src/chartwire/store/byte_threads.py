"""Threads for the bytes of documents: hashing, sealing, opening and the disk's part in it never hold up the event loop.

Threads and not processes: the libraries that do it let go of Python's lock meanwhile. As many as there are cores, for a
core can do no more, and no fewer than two, so that a disk that stalls one does not stop them all.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES = 256 * 1024
"""What is worth the way to a thread and back: about a millisecond of hashing and sealing."""

_threads = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="chartwire-bytes")


async def in_byte_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `work` returns or raises. A caller that is cancelled leaves it running to its end."""
    loop = asyncio.get_running_loop()
    return await asyncio.shield(loop.run_in_executor(_threads, lambda: work(*args, **named)))
