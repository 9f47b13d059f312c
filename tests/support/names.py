"""Resolvers under a test's control."""

import asyncio
import socket
from collections.abc import Mapping, Sequence


class ScriptedResolver:
    """Answers by a table that a test may change while it runs; other names do not exist. Counts what it is asked."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = dict(names)
        self.asked = 0

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked += 1
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[host]

    def forget(self, host: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to give back."""


class FailingResolver(ScriptedResolver):
    """Fails as the system's resolver does: `EAI_AGAIN` stands for SERVFAIL and for servers that do not answer."""

    def __init__(self, code: int) -> None:
        super().__init__({})
        self._code = code

    async def resolve(self, host: str) -> Sequence[str]:
        raise socket.gaierror(self._code, "no answer")


class HangingResolver(ScriptedResolver):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__({})

    async def resolve(self, host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError("not reached")
