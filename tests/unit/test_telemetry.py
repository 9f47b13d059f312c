"""What may not get out does not, however it is logged."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from chartwire.telemetry import ALLOWED_LOG_KEYS, Durations, Metrics, configure_logging, get_logger

SECRET = "Lovelace"
LEAKY_URL = f"https://fhir.example/Patient?name={SECRET}"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


Start = Callable[[Literal["auto", "console", "json"], str], StringIO]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Configures logging; gives what comes out at standard error."""

    def configure(log_format: Literal["auto", "console", "json"], level: str) -> StringIO:
        shown = StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        configure_logging(log_format, level)
        return shown

    return configure


class Lines:
    """What has been logged; nothing of it may hold the secret."""

    def __init__(self, shown: StringIO) -> None:
        self._shown = shown

    def take(self) -> list[dict[str, Any]]:
        assert SECRET not in self._shown.getvalue()
        return [json.loads(line) for line in self._shown.getvalue().splitlines()]


@pytest.fixture
def lines(start: Start) -> Lines:
    return Lines(start("json", "debug"))


def fail() -> None:
    raise LookupError(SECRET)


def test_listed_keys_are_logged_and_others_dropped(lines: Lines) -> None:
    get_logger().info("document stored", network="mercy", bytes=5, patient_id=SECRET, url=LEAKY_URL, name=SECRET)
    (record,) = lines.take()
    assert record.pop("timestamp").endswith("Z")
    assert record == {"event": "document stored", "level": "info", "network": "mercy", "bytes": 5}


def test_bound_keys_are_dropped_too(lines: Lines) -> None:
    get_logger().bind(patient=SECRET, network="mercy").warning("slow")
    assert lines.take()[0].keys() == {"event", "level", "timestamp", "network"}


def test_no_listed_key_names_a_person_or_an_address() -> None:
    for part in ("patient", "name", "url", "token", "secret", "key", "document", "body", "birth", "text", "exception"):
        assert not [key for key in ALLOWED_LOG_KEYS if part in key]


@pytest.mark.parametrize("how", ["exception", "true", "instance", "tuple"])
def test_of_an_exception_only_its_type_and_place_are_logged(lines: Lines, how: str) -> None:
    try:
        fail()
    except LookupError as error:
        if how == "exception":
            get_logger().exception("step failed")
        else:
            info: Any = {"true": True, "instance": error, "tuple": sys.exc_info()}[how]
            get_logger().error("step failed", exc_info=info)
    (record,) = lines.take()
    assert (record["event"], record["error_type"]) == ("step failed", "LookupError")
    assert record["where"] == f"{__name__}:{fail.__code__.co_firstlineno + 1}"


def test_chained_exceptions_and_stacks_do_not_show_either(lines: Lines) -> None:
    try:
        try:
            fail()
        except LookupError as error:
            raise ValueError(SECRET) from error
    except ValueError:
        get_logger().exception("step failed", stack_info=True)
    (record,) = lines.take()
    assert record.keys() == {"event", "level", "timestamp", "error_type", "where"}


def test_a_library_may_say_that_it_failed_and_nothing_else(lines: Lines) -> None:
    library = logging.getLogger("library.client")
    library.error("GET %s failed", LEAKY_URL, extra={"body": SECRET})
    try:
        fail()
    except LookupError:
        library.exception("GET %s failed", LEAKY_URL)
    first, second = lines.take()
    assert (first["event"], first["logger"]) == ("library error", "library.client")
    assert (second["event"], second["logger"], second["error_type"]) == (
        "library error",
        "library.client",
        "LookupError",
    )


def test_a_chatty_library_is_not_heard(lines: Lines) -> None:
    library = logging.getLogger("library.chatty")
    library.setLevel(logging.DEBUG)
    library.debug("GET %s", LEAKY_URL)
    library.info("GET %s", LEAKY_URL)
    library.warning("GET %s", LEAKY_URL)
    assert lines.take() == []


def test_the_level_is_kept(start: Start) -> None:
    shown = start("json", "warning")
    get_logger().info("not worth it")
    get_logger().warning("worth it")
    assert [record["event"] for record in Lines(shown).take()] == ["worth it"]


def test_the_console_shows_no_more(start: Start) -> None:
    shown = start("console", "info")
    try:
        fail()
    except LookupError:
        get_logger().exception("step failed", network="mercy", patient=SECRET)
    (line,) = shown.getvalue().splitlines()
    assert all(part in line for part in ("step failed", "mercy", "LookupError"))
    assert SECRET not in line


def test_without_a_terminal_logs_are_json(start: Start) -> None:
    shown = start("auto", "info")
    get_logger().info("started")
    assert [record["event"] for record in Lines(shown).take()] == ["started"]


def test_metrics_have_no_label_for_persons_or_customers() -> None:
    metrics = Metrics()
    labels = {label for family in metrics.registry.collect() for sample in family.samples for label in sample.labels}
    declared = {label for collector in vars(metrics).values() for label in getattr(collector, "_labelnames", ())}
    assert (labels - {"le"}) | declared == {
        "route",
        "method",
        "status",
        "network",
        "step",
        "outcome",
        "event_type",
        "age",
        "queue",
        "state",
    }


def test_two_sets_of_metrics_live_side_by_side() -> None:
    first, second = Metrics(), Metrics()
    first.attempts.labels("document", "delivered").inc()
    assert b'outcome="delivered"' in generate_latest(first.registry)
    assert b'outcome="delivered"' not in generate_latest(second.registry)


def test_what_a_process_does_not_look_at_is_absent_and_not_zero() -> None:
    """The alarm that nobody delivers rings on the absence of its gauge, which other roles must not tell."""
    metrics = Metrics()
    assert b"chartwire_webhook_late_seconds" not in generate_latest(metrics.registry)
    for late in (0.0, 7.0):
        metrics.delivery_late.set(late)
        assert metrics.registry.get_sample_value("chartwire_webhook_late_seconds") == late


@given(st.lists(st.floats(0, 100), max_size=20))
def test_many_durations_at_once_are_scraped_as_if_observed_one_by_one(durations: list[float]) -> None:
    ours, libraries = CollectorRegistry(), CollectorRegistry()
    at_once, one_by_one = Durations("d", "", ours), Histogram("d", "", registry=libraries)
    at_once.observe_all(durations)
    for duration in durations:
        one_by_one.observe(duration)
    assert scraped(ours) == scraped(libraries)


def scraped(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
