"""Which trace a call belongs to, for servers that are asked over HTTP (W3C Trace Context)."""

from contextvars import ContextVar

__all__ = ["trace_headers", "traceparent"]

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def trace_headers() -> dict[str, str]:
    """Return what tells a server which trace it works for; nothing where none is written."""
    value = traceparent.get()
    return {} if value is None else {"traceparent": value}
