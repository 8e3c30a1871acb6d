"""Traces over OTLP where OpenTelemetry's variables name a collector; else nothing is imported."""

import os
from typing import TYPE_CHECKING

from experts_registry.errors import OptionError, PluginError

if TYPE_CHECKING:
    from composer.http.tracing import Tracing

__all__ = ["tracing_from_environment"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def tracing_from_environment() -> "Tracing | None":
    """Return None where no variable names a collector, or one says not to trace.

    Raises:
        PluginError: the extra ``otel`` is not installed.
        OptionError: another protocol than HTTP is asked for.
    """
    if _first(_ENDPOINTS) is None or _is_off():
        return None
    if (protocol := _first(_PROTOCOLS)) not in (None, "http/protobuf"):
        raise OptionError(f"{_PROTOCOLS[1]}: {protocol!r} is not spoken here; use 'http/protobuf'")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from composer.http.tracing import Tracing
    except ImportError as error:
        raise PluginError(
            f"{_ENDPOINTS[1]}: {error.name} is missing; "
            "run: pip install 'expert-composer[otel]', or unset the variable"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME") or "expert-composer"
    # They read the other variables themselves: headers, timeouts, samplers, limits, attributes.
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _first(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _is_off() -> bool:
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").casefold() == "true"
    return is_disabled or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
