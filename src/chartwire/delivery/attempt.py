"""One attempt: open the payload, sign, post, judge the answer (`docs/reference/webhooks.md`, Outcomes)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from random import Random

import orjson

from chartwire.clock import Clock
from chartwire.delivery.egress import Egress, PostAnswer, PostRequest, Recipient
from chartwire.delivery.headers import header_lines
from chartwire.delivery.schedule import next_attempt, parse_retry_after, pause
from chartwire.delivery.signing import key_headers, sign
from chartwire.errors import BusError
from chartwire.model.webhook import PROBES, EventType, Outcome, Timing
from chartwire.settings import Settings
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.deliveries import AttemptResult
from chartwire.store.targets import Target
from chartwire.store.vault import Purpose, Vault
from chartwire.tracing import continue_trace

_MANY = 4096  # endpoints whose recipients are kept

_DELIVERED, _PING = Outcome.DELIVERED, EventType.PING  # asked for with every attempt; an enumeration looks them up

_SLOW_DOWN = frozenset({429, 502, 503, 504})

_DETAILS = {
    Outcome.DELIVERED: "OK",
    Outcome.BAD_PONG: "Bad response from webhook call",
    Outcome.DNS: "The host name could not be resolved",
    Outcome.REFUSED: "No connection could be made",
    Outcome.TLS: "The TLS handshake failed or the certificate is not trusted",
    Outcome.TIMEOUT: "The answer was not complete in time",
    Outcome.RESET: "The connection was closed before the answer was complete",
    Outcome.PROTOCOL: "The answer was not valid HTTP",
    Outcome.TOO_LARGE_HEADERS: "The headers of the answer were too large",
    Outcome.FORBIDDEN_ADDRESS: "The URL points to an address that is not allowed",
}


AttemptEnded = Callable[[ClaimedDelivery, AttemptResult | None], None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for every endpoint that sets nothing else; times in seconds."""

    timeout: float
    ping_timeout: float
    waits: tuple[float, ...]
    jitter: float

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """The installation's policy."""
        return cls(
            settings.webhook_timeout_seconds,
            settings.webhook_ping_timeout_seconds,
            tuple(settings.webhook_retry_seconds),
            settings.webhook_retry_jitter,
        )


class Poster:
    """Makes attempts."""

    def __init__(self, egress: Egress, vault: Vault, clock: Clock, random: Random, policy: Policy) -> None:
        self._egress = egress
        self._vault = vault
        self._clock = clock
        self._random = random
        self._policy = policy

    @property
    def is_open(self) -> bool:
        """Whether anything can be posted now."""
        return self._egress.is_open

    def start(self, claimed: ClaimedDelivery, ended: AttemptEnded) -> None:
        """Post a claimed delivery once; `ended` is told what follows from the answer, perhaps before this returns.

        It is told None of an attempt of which nobody knows how it ended: its lease brings the delivery back.
        Raises `SealBrokenError` for a payload that cannot be opened.
        """
        target = claimed.target
        endpoint = target.endpoint
        body = claimed.plain or self._vault.open(Purpose.PAYLOAD, claimed.body)
        started_at, started = self._clock(), time.monotonic()
        keys = target.keys_at(started_at)
        lines = sign(endpoint.signature_scheme, keys, claimed.event_id, int(started_at.timestamp()), body)
        if claimed.trace is not None:
            trace = continue_trace(claimed.trace, self._random.randrange(1, 1 << 64))
            lines += header_lines({"traceparent": trace})
        deadline = endpoint.timeout_seconds or self._policy.timeout
        if claimed.event_type is _PING:
            deadline = min(deadline, self._policy.ping_timeout)

        judge_answer = partial(self._judge, claimed, ended, body, started_at, started)
        self._egress.send(PostRequest(_recipient(target), lines, body, deadline), judge_answer)

    def _judge(
        self,
        claimed: ClaimedDelivery,
        ended: AttemptEnded,
        body: bytes,
        started_at: datetime,
        started: float,
        answer: PostAnswer | None,
        timing: Timing,
    ) -> None:
        """What follows from an answer. A function within `start` would cost a cell for each of what it needs."""
        if answer is None:
            ended(claimed, None)
            return
        outcome = judge(answer) if claimed.event_type is not _PING else judge_pong(answer, body)
        detail = _DETAILS.get(outcome) or f"Request failed with status code {answer.status}"
        took = round((time.monotonic() - started if answer.seconds is None else answer.seconds) * 1000)
        url = claimed.target.endpoint.url or ""
        result = AttemptResult(url, started_at, took, outcome, detail, answer.status, answer.body, None, None, timing)
        ended(claimed, result if outcome is _DELIVERED else self._failed(claimed, result, answer.retry_after))

    async def attempt(self, claimed: ClaimedDelivery) -> AttemptResult:
        """As `start`, for who has nothing else to do meanwhile."""
        future: asyncio.Future[AttemptResult] = asyncio.get_running_loop().create_future()

        def keep(_: ClaimedDelivery, result: AttemptResult | None) -> None:
            future.set_result(result) if result is not None else future.set_exception(BusError())

        self.start(claimed, keep)
        return await future

    def _failed(self, claimed: ClaimedDelivery, result: AttemptResult, retry_after: str | None) -> AttemptResult:
        """With what follows from a failure."""
        now, is_strained = self._clock(), result.outcome is Outcome.SLOW_DOWN
        wait = parse_retry_after(retry_after, now) if is_strained else None
        return result._replace(
            retry_at=self._retry_at(claimed, now, wait),
            pause_until=pause(now, wait) if is_strained else None,
            spread=self._random.uniform(1 - self._policy.jitter, 1 + self._policy.jitter),
        )

    def _retry_at(self, claimed: ClaimedDelivery, now: datetime, retry_after: timedelta | None) -> datetime | None:
        if claimed.event_type in PROBES:
            return None
        own = claimed.target.endpoint.retry_seconds
        waits = self._policy.waits if own is None else (0, *own)
        return next_attempt(waits, self._policy.jitter, claimed.attempt, now, self._random, retry_after)


@lru_cache(_MANY)
def _recipient(target: Target) -> Recipient:
    """Prepared once for all messages of an endpoint, until something of it changes."""
    endpoint = target.endpoint
    headers = {
        **target.headers,
        "content-type": endpoint.payload_version.media_type,
        **key_headers(endpoint, target.keys),
    }
    return Recipient(endpoint.url or "", headers, target.tls)


def judge(answer: PostAnswer) -> Outcome:
    """What an answer means for a message."""
    match answer.status:
        case None:
            return answer.failure or Outcome.PROTOCOL
        case status if 200 <= status < 300:
            return _DELIVERED
        case status if 300 <= status < 400:
            return Outcome.REDIRECT
        case 410:
            return Outcome.GONE
        case status if status in _SLOW_DOWN:
            return Outcome.SLOW_DOWN
        case _:
            return Outcome.HTTP_ERROR


def judge_pong(answer: PostAnswer, ping: bytes) -> Outcome:
    """What an answer means for a ping: it must repeat the question."""
    outcome = judge(answer)
    if outcome is not Outcome.DELIVERED:
        return outcome
    try:
        pong = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return Outcome.BAD_PONG
    good = isinstance(pong, dict) and pong.get("pong") == orjson.loads(ping)["ping"]
    return Outcome.DELIVERED if good else Outcome.BAD_PONG
