"""One attempt: open the payload, sign, post, judge the answer (`docs/reference/webhooks.md`, Outcomes)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random

import orjson

from chartwire.clock import Clock
from chartwire.delivery.egress import Egress, PostAnswer, PostRequest, Recipient
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

    def start(self, claimed: ClaimedDelivery, ended: Callable[[ClaimedDelivery, AttemptResult | None], None]) -> None:
        """Post a claimed delivery once; `ended` is told what follows from the answer, perhaps before this returns.

        It is told None of an attempt of which nobody knows how it ended: its lease brings the delivery back.
        Raises `SealBrokenError` for a payload that cannot be opened.
        """
        body = claimed.plain or self._vault.open(Purpose.PAYLOAD, claimed.body)
        started_at, started = self._clock(), time.monotonic()
        request = self._request(claimed, body, started_at)

        def judge_answer(answer: PostAnswer | None, timing: Timing) -> None:
            if answer is None:
                ended(claimed, None)
                return
            outcome = judge(answer) if claimed.event_type is not EventType.PING else judge_pong(answer, body)
            seconds = time.monotonic() - started if answer.seconds is None else answer.seconds
            ended(claimed, self._result(claimed, request.recipient.url, started_at, seconds, answer, outcome, timing))

        self._egress.send(request, judge_answer)

    async def attempt(self, claimed: ClaimedDelivery) -> AttemptResult:
        """As `start`, for who has nothing else to do meanwhile."""
        future: asyncio.Future[AttemptResult] = asyncio.get_running_loop().create_future()

        def keep(_: ClaimedDelivery, result: AttemptResult | None) -> None:
            future.set_result(result) if result is not None else future.set_exception(BusError())

        self.start(claimed, keep)
        return await future

    def _request(self, claimed: ClaimedDelivery, body: bytes, now: datetime) -> PostRequest:
        endpoint = claimed.target.endpoint
        keys = claimed.target.keys_at(now)
        headers = sign(endpoint.signature_scheme, keys, claimed.event_id, int(now.timestamp()), body)
        if claimed.trace is not None:
            headers["traceparent"] = continue_trace(claimed.trace, self._random.randrange(1, 1 << 64))
        deadline = endpoint.timeout_seconds or self._policy.timeout
        if claimed.event_type is EventType.PING:
            deadline = min(deadline, self._policy.ping_timeout)
        return PostRequest(_recipient(claimed.target), headers, body, deadline)

    def _result(
        self,
        claimed: ClaimedDelivery,
        url: str,
        started_at: datetime,
        seconds: float,
        answer: PostAnswer,
        outcome: Outcome,
        timing: Timing,
    ) -> AttemptResult:
        detail = _DETAILS.get(outcome) or f"Request failed with status code {answer.status}"
        result = AttemptResult(
            url, started_at, round(seconds * 1000), outcome, detail, answer.status, answer.body, timing=timing
        )
        return result if outcome is Outcome.DELIVERED else self._failed(claimed, result, answer.retry_after)

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
            return Outcome.DELIVERED
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
