"""Streams and consumers: made, read back, mended where the broker allows it."""

from collections.abc import Awaitable, Sequence

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from chartwire.delivery.bus import Queue
from chartwire.errors import ConfigurationError

_MENDABLE = ("subjects", "max_age", "duplicate_window", "num_replicas")
_FIXED = ("retention", "storage")


async def make_stream(jetstream: JetStreamContext, queue: Queue, name: str, subjects: str, replicas: int) -> None:
    """Make the stream of a queue, or read back what is there and mend it.

    Raises `ConfigurationError` for what is its operator's to mend.
    """
    wanted = StreamConfig(
        name=name,
        subjects=[subjects],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        max_age=queue.max_age,
        duplicate_window=queue.max_age,
        num_replicas=replicas,
    )
    try:
        found = (await jetstream.stream_info(name)).config
    except NotFoundError:
        await _asked(jetstream.add_stream(wanted), name)
        found = (await jetstream.stream_info(name)).config
    if fixed := _different(found, wanted, _FIXED):
        raise ConfigurationError(f"stream {name} has another {fixed[0]}: remove it, and it is made anew")
    if _different(found, wanted, _MENDABLE):
        await _asked(jetstream.update_stream(wanted), name)
        found = (await jetstream.stream_info(name)).config
        if left := _different(found, wanted, _MENDABLE):
            raise ConfigurationError(f"stream {name}: the broker leaves {left[0]} as it was")


async def make_consumer(
    jetstream: JetStreamContext, queue: Queue, stream: str, lane: str, subject: str, forgotten_after: float | None
) -> None:
    """Make the consumer of a lane, or bring it up to date; it goes when nobody has asked it for `forgotten_after`."""
    wanted = ConsumerConfig(
        durable_name=lane,
        filter_subject=subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=queue.ack_wait,
        max_ack_pending=-1,  # who takes tickets asks for as many as it can do
        inactive_threshold=forgotten_after,
    )
    await _asked(jetstream.add_consumer(stream, wanted), stream)


def _different(found: StreamConfig, wanted: StreamConfig, names: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(found, name) != getattr(wanted, name)]


async def _asked(request: Awaitable[object], stream: str) -> None:
    """What the broker refuses is its operator's to mend."""
    try:
        await request
    except NotFoundError:
        raise
    except APIError as error:
        if error.code == 503:  # JetStream is not ready, or has no room now
            raise
        raise ConfigurationError(f"stream {stream}: the broker refuses it: {error.description}") from None
