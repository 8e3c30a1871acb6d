"""The spans of a request: itself, the decision, each call to an expert. No texts of any kind.

That of the request is open while it runs; the others are written at its end from the times that
were noted, so that an answer never waits for them.
"""

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from composer.decisions import error_class
from composer.http.finished import OPERATIONS, Finished
from composer.trace import Step, Trail
from experts_registry.tracing import traceparent
from experts_registry.types import Usage

__all__ = ["Tracing"]

_CONTEXT = (b"traceparent", b"tracestate")


class Tracing:
    """Writes the spans of requests.

    Args:
        provider: where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("expert_composer")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: list[tuple[bytes, bytes]]) -> Span:
        """Open the span of a request, in the client's trace where it names one."""
        sent = {n.decode(): v.decode("latin-1") for n, v in headers if n in _CONTEXT}
        parent = self._propagator.extract(sent, Context())
        span = self._tracer.start_span("request", context=parent, kind=SpanKind.SERVER)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span, Context()))
        traceparent.set(carrier.get("traceparent"))  # for the task of this request alone
        return span

    def end(self, span: Span, done: Finished) -> None:
        """Close it with what the request came to."""
        if span.is_recording():
            tree = _Tree(self._tracer, set_span_in_context(span, Context()), done)
            for trail in done.visit.trails if done.visit else ():
                tree.add(trail)
            operation = OPERATIONS.get(done.route)
            span.update_name(
                f"{operation} {done.model}" if operation else f"{done.method} {done.route}"
            )
            span.set_attributes(_of_request(done))
            _fail(span, done.error)
        span.end()

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


class _Tree:
    """Writes the spans below a request's."""

    def __init__(self, tracer: Any, parent: Context, done: Finished) -> None:
        self._tracer, self._parent, self._done = tracer, parent, done
        self._zero = time.time_ns() - int(time.perf_counter() * 1e9)

    def add(self, trail: Trail) -> None:
        """Write the decision on one prompt, and the calls that followed."""
        if trail.decision is None or trail.ledger is None:
            return
        decision = trail.decision
        told = {
            "expert_composer.expert": decision.primary,
            "gen_ai.request.model": self._done.model,
        }
        if decision.router:
            told["expert_composer.router"] = decision.router
        ended = trail.began if trail.decided is None else trail.decided
        self._write("decide", SpanKind.INTERNAL, trail.began, ended, told)
        for step, ended in zip(trail.ledger.steps, trail.ledger.ends, strict=True):
            self._call(step, ended)

    def _call(self, step: Step, ended: float) -> None:
        operation = OPERATIONS.get(self._done.route, "chat")
        told = _of_call(step, self._done) | {"gen_ai.operation.name": operation}
        error = error_class(step.error)
        name = f"{operation} {step.expert}"
        self._write(name, SpanKind.CLIENT, ended - step.seconds, ended, told, error)

    def _write(
        self,
        name: str,
        kind: SpanKind,
        began: float,
        ended: float,
        told: Mapping[str, Any],
        error: str | None = None,
    ) -> None:
        span = self._tracer.start_span(
            name, context=self._parent, kind=kind, attributes=told, start_time=self._ns(began)
        )
        _fail(span, error)
        span.end(end_time=self._ns(ended))

    def _ns(self, moment: float) -> int:
        return self._zero + int(moment * 1e9)


def _of_request(done: Finished) -> dict[str, Any]:
    told: dict[str, Any] = {
        "http.request.method": done.method,
        "http.route": done.route,
        "http.response.status_code": done.status,
        "expert_composer.request_id": done.request_id,
    }
    visit, operation = done.visit, OPERATIONS.get(done.route)
    if visit is None or operation is None:
        return told
    steps = visit.steps
    told |= {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": done.model,
        "gen_ai.response.model": done.expert,
        "gen_ai.response.finish_reasons": [a.generation.finish_reason for a in visit.answers],
        "expert_composer.generation": visit.registry.generation,
        "expert_composer.cost_usd": sum(step.cost for step in steps),
    }
    spec = visit.registry.experts.get(done.expert)
    told["gen_ai.provider.name"] = spec.backend if spec else "expert_composer"
    return told | _of_usage(
        Usage(
            prompt_tokens=sum(step.usage.prompt_tokens for step in steps),
            completion_tokens=sum(step.usage.completion_tokens for step in steps),
        )
    )


def _of_call(step: Step, done: Finished) -> dict[str, Any]:
    told: dict[str, Any] = {"expert_composer.expert": step.expert, **_of_usage(step.usage)}
    spec = done.visit.registry.experts.get(step.expert) if done.visit else None
    if spec is not None:
        told |= {"gen_ai.provider.name": spec.backend, "gen_ai.request.model": str(spec.model)}
    return told | {"expert_composer.cost_usd": step.cost}


def _of_usage(usage: Usage) -> dict[str, Any]:
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }


def _fail(span: Span, error: str | None) -> None:
    if error:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
