"""Connecting to the broker, and what is said when that fails: never an address, a name or a password."""

import asyncio
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.errors import AuthorizationError
from nats.js.errors import ServiceUnavailableError

from chartwire.delivery.bus import Broker, BrokerFacts
from chartwire.errors import BusError

ANSWER_SECONDS = 5
_CONNECT_SECONDS = 2
_PING_SECONDS = 2  # a line that was cut without a word is found out at the third

Called = Callable[[], Awaitable[None]]


async def ask_broker(broker: Broker, *, makes_streams: bool) -> BrokerFacts:
    """Ask a broker who it is, and whether it keeps streams for us. Raises `BusError` that says what is wrong."""
    try:
        client = await connect(broker)
        try:
            if makes_streams:
                await client.jetstream(timeout=ANSWER_SECONDS).account_info()
            return BrokerFacts(str(client.connected_server_version), client.max_payload)
        finally:
            await client.close()
    except Exception as error:  # noqa: BLE001  such as credentials that cannot be read
        raise BusError(reason(error)) from None


async def _nothing() -> None:
    """Nobody wants to know."""


async def connect(broker: Broker, lost: Called = _nothing, back: Called = _nothing) -> Client:
    """A connection that comes back by itself; raises what it met if there is none in a while."""
    client, errors = Client(), list[Exception]()

    async def note(error: Exception) -> None:
        errors.append(error)

    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await client.connect(
                list(broker.servers),
                name="chartwire",
                user_credentials=str(broker.credentials) if broker.credentials else None,
                error_cb=note,
                disconnected_cb=lost,
                closed_cb=lost,
                reconnected_cb=back,
                connect_timeout=_CONNECT_SECONDS,
                reconnect_time_wait=1,
                max_reconnect_attempts=-1,
                ping_interval=_PING_SECONDS,
            )
    except BaseException as error:
        await client.close()
        if isinstance(error, TimeoutError) and errors:  # what it met at its tries, the most telling of it
            raise max(errors, key=_is_refusal) from None
        raise
    return client


def reason(error: Exception) -> str:
    """Why there is no connection, for whoever operates it."""
    if _is_refusal(error):
        return "the broker refuses these credentials"
    if isinstance(error, ServiceUnavailableError):
        return "the broker keeps no streams: JetStream is off, or not ready"
    return f"the broker cannot be reached: {type(error).__name__}"


def _is_refusal(error: Exception) -> bool:
    """While it connects the client has only the broker's own words for it."""
    return isinstance(error, AuthorizationError) or "authorization violation" in str(error).lower()
