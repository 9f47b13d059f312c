"""The delivery client is tested on both event loops: the server runs on uvloop, whose transports differ in corners."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which event loops a test runs on, once each."""
    del config
    return _LOOPS if item.path.name.startswith("test_delivery") else {"asyncio": asyncio.new_event_loop}
