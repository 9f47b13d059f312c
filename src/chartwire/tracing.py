"""Trace context (W3C): it comes with a request and is passed on with the messages that follow from it."""

from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_SPAN_AT, _SPAN_DIGITS = 36, 16


def read_traceparent(header: str | None) -> str | None:
    """A `traceparent` of version 00; None for one that is absent or malformed, which is to be ignored (§3.2.2)."""
    if header is None:
        return None
    span = get_current_span(_PROPAGATOR.extract({"traceparent": header})).get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else None


def continue_trace(traceparent: str, span: int) -> str:
    """The same trace with a span of ours as the parent of what the receiver does; `span` is of 64 bits, not zero."""
    return f"{traceparent[:_SPAN_AT]}{span:016x}{traceparent[_SPAN_AT + _SPAN_DIGITS :]}"
