"""Serving HTTP: the installation's application on a listening socket, until a signal says stop."""

import asyncio
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chartwire import __version__
from chartwire.memory import tend_memory
from chartwire.open_files import allow_open_files
from chartwire.settings import Settings
from chartwire.telemetry import configure_logging, get_logger
from chartwire.wiring import start_installation

_GRACE_SECONDS = 10
_BACKLOG = 2048
_LARGEST_HEAD = 1 << 20

log = get_logger()


def run_server(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve on `listener` until SIGTERM or SIGINT; returns when everything in flight has been drained.

    `on_ready` is called in a thread once requests are answered. A second signal ends the process at once, which loses
    nothing that was acknowledged.
    """
    configure_logging(settings.log_format, settings.log_level)
    tend_memory()
    allow_open_files()
    uvloop.run(_serve(settings, listener, on_ready))


async def _serve(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    async with start_installation(settings) as app:
        host, port = listener.getsockname()[:2]

        def announce() -> None:
            log.info("serving", version=__version__, host=host, port=port)
            on_ready()

        server = _Server(app, announce)
        _stop_on_signal(server, app.state.stopping)
        await server.serve(sockets=[listener])
        log.info("stopping")
    log.info("stopped")


class _Server(uvicorn.Server):
    """Says when it answers, and leaves signals alone: uvicorn would raise them again before our parts are drained."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # request lines hold ids; requests are counted in the metrics instead
                server_header=False,
                lifespan="off",
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                http=_BoundedHead,
                ws="none",
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await asyncio.to_thread(self._on_ready)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _BoundedHead(HttpToolsProtocol):
    """Refuses a request whose head does not end: the parser would gather it for ever, the slower the longer it is."""

    _is_in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > _LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The request head is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()


def _stop_on_signal(server: uvicorn.Server, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        server.should_exit = True
        stopping.set()  # answers that go on for as long as somebody listens end now
        for each in signals:
            loop.remove_signal_handler(each)

    for each in signals:
        loop.add_signal_handler(each, stop)
