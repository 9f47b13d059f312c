"""Logs and metrics. What may appear in them is listed here; everything else is dropped.

The operational log is not the audit trail: it holds no health data, no names, no ids of patients or documents, no
tokens and no URLs with ids (see `docs/explanation/privacy.md`). Log records pass an allow-list of keys.
"""

import logging
import sys
from bisect import bisect_right
from collections.abc import Iterator, MutableMapping, Sequence
from functools import reduce
from itertools import accumulate
from operator import add
from typing import Any, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

ALLOWED_LOG_KEYS = frozenset(
    {
        "event", "level", "timestamp", "logger",  # what every record has
        "account_id", "endpoint_id", "query_id", "delivery", "event_type",  # random ids that identify no patient
        "network", "code", "status", "attempt", "outcome", "route", "method",
        "count", "seconds", "milliseconds", "bytes", "host", "port", "path_template", "version",
        "error_type", "where", "hint", "setting", "role", "pid", "signal",
    }
)  # fmt: skip


def drop_unlisted_keys(_: object, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: a key that is not in `ALLOWED_LOG_KEYS` never leaves the process."""
    for key in [key for key in record if key not in ALLOWED_LOG_KEYS]:
        del record[key]
    return record


def describe_exception(_: object, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: of an exception its type and place are kept; its text may hold health data."""
    info = record.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        record["error_type"] = type(error).__name__
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is not None:
            record["where"] = f"{frame.tb_frame.f_globals.get('__name__')}:{frame.tb_lineno}"
    return record


def configure_logging(log_format: Literal["auto", "console", "json"], level: str) -> None:
    """Logs go to standard error, one line a record."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            describe_exception,
            drop_unlisted_keys,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries may put URLs or bodies into their records: only what they call an error passes, without its text.
    logging.basicConfig(handlers=[_LibraryHandler(logging.ERROR)], level=logging.ERROR, force=True)


class _LibraryHandler(logging.Handler):
    """Takes a library's record over into ours, keeping its logger's name and the error's type alone."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().error("library error", logger=record.name, exc_info=error)


def get_logger() -> Any:
    """The logger; call it as `log.info("what happened", key=value)` with allowed keys."""
    return structlog.get_logger()


class _ToldGauge(Gauge):
    """A gauge that is absent until it is set: a process that never looks must not say 0, nor hide that nobody looks."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        super().__init__(name, documentation, registry=None)
        self._untold_in: CollectorRegistry | None = registry

    def set(self, value: float) -> None:
        super().set(value)
        if self._untold_in is not None:
            self._untold_in.register(self)
            self._untold_in = None


class Durations(Collector):
    """A histogram of seconds that is told many at once: one by one each costs two microseconds."""

    def __init__(
        self,
        name: str,
        documentation: str,
        registry: CollectorRegistry,
        bounds: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    ) -> None:
        """`bounds` rise."""
        self.name = name
        self._documentation = documentation
        self._bounds = [*(bound for bound in bounds if bound < float("inf")), float("inf")]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe_all(self, durations: Sequence[float]) -> None:
        """Count them in. Sorted, they are looked through once for each bound and not at every one."""
        ordered, counted = sorted(durations), 0
        self._sum = reduce(add, durations, self._sum)
        for place, bound in enumerate(self._bounds):
            if counted == len(ordered):
                break
            up_to = bisect_right(ordered, bound, counted)
            self._counts[place] += up_to - counted
            counted = up_to

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What is scraped."""
        buckets = zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(self.name, self._documentation, list(buckets), self._sum)


class Metrics:
    """The Prometheus metrics of one process. No label ever holds a patient, an account, a document or a URL."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "chartwire_http_requests_total",
            "API requests answered",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.network_requests = Counter(
            "chartwire_network_steps_total",
            "Steps of document queries by network and outcome (started, done, retried, failed, refused)",
            ["network", "step", "outcome"],
            registry=self.registry,
        )
        self.documents_stored = Counter(
            "chartwire_documents_stored_total", "Documents stored", ["network"], registry=self.registry
        )
        self.document_bytes = Counter(
            "chartwire_document_bytes_total", "Bytes of documents stored", ["network"], registry=self.registry
        )
        self.attempts = Counter(
            "chartwire_webhook_attempts_total",
            "Webhook attempts by event type and outcome",
            ["event_type", "outcome"],
            registry=self.registry,
        )
        self.attempt_seconds = Durations(
            "chartwire_webhook_attempt_seconds", "Duration of webhook attempts", registry=self.registry
        )
        self.delivery_lag = Durations(
            "chartwire_webhook_delivery_lag_seconds",
            "From the commit of an event to its delivery",
            bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600, 86400, 300000),
            registry=self.registry,
        )
        self.backlog = Gauge(
            "chartwire_webhook_backlog",
            "Deliveries that wait, by age of the oldest part",
            ["age"],
            registry=self.registry,
        )
        self.delivery_late = _ToldGauge(
            "chartwire_webhook_late_seconds",
            "How long the delivery that has waited longest for its turn could have gone out; the same in every process",
            registry=self.registry,
        )
        self.steps_late = Gauge(
            "chartwire_network_late_seconds",
            "How long the step of a document query that has waited longest for its turn has been due; the same in every"
            " process",
            ["network"],
            registry=self.registry,
        )
        self.circuits = Gauge(
            "chartwire_network_circuit",
            "1 for the state that the circuit breaker of a network is in (closed, open, half-open); the same in every"
            " process",
            ["network", "state"],
            registry=self.registry,
        )
        self.endpoints = Gauge(
            "chartwire_webhook_endpoints",
            "Endpoints that have a URL, by the state of their breaker (closed, open) or disabled",
            ["state"],
            registry=self.registry,
        )
        self.tickets = Counter(
            "chartwire_tickets_total",
            "Tickets on the broker by queue and what became of them (published, acked, redelivered, late, lost)",
            ["queue", "outcome"],
            registry=self.registry,
        )
        self.workers = _ToldGauge(
            "chartwire_webhook_workers", "Workers in another zone that listen for postings", registry=self.registry
        )
