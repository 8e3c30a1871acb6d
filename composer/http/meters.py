"""What is counted of every request, under OpenTelemetry's names for generative models.

Every label is a name of the expert file, of our code or of HTTP: nothing that a client, a prompt
or a key can choose, so the number of series is bounded by the file. One registry an app: several
may live in a process. The instruments outlive edits of the file, as counters must.
"""

from itertools import pairwise
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from composer.decisions import error_class
from composer.http.finished import OPERATIONS, Finished
from composer.trace import Step, Trail
from experts_registry.errors import CapacityError, ExpertOverloadedError, LimitError
from routers.base import Decision

__all__ = ["Meters"]

_DURATION = tuple(0.01 * 2**i for i in range(14))
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_TOKENS = tuple(4**i for i in range(14))
_DECISION = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_NAMES = (
    "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
    "gen_ai_response_model",
)  # fmt: skip
_MOST_USD = 1e9  # of one call; an upstream server may claim any number of tokens


class _Children(dict[tuple[str, ...], Any]):
    """The series of one metric by their labels: looked up once, as that costs as much as counting.

    Args:
        metric: whose.
    """

    def __init__(self, metric: Counter | Histogram) -> None:
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Meters:
    """Counts requests as they end."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._duration = self._histogram(
            "gen_ai_server_request_duration_seconds", "Requests.", (*_NAMES, "error_type"),
            _DURATION,
        )  # fmt: skip
        self._first = self._histogram(
            "gen_ai_server_time_to_first_token_seconds", "Streams, to the first piece.",
            _NAMES, _FIRST,
        )  # fmt: skip
        self._each = self._histogram(
            "gen_ai_server_time_per_output_token_seconds", "Streams, after the first piece.",
            _NAMES, _EACH,
        )  # fmt: skip
        self._call = self._histogram(
            "gen_ai_client_operation_duration_seconds", "Calls to experts.",
            (*_NAMES, "error_type"), _DURATION,
        )  # fmt: skip
        self._tokens = self._histogram(
            "gen_ai_client_token_usage", "Tokens of a call.", (*_NAMES, "gen_ai_token_type"),
            _TOKENS,
        )  # fmt: skip
        self._decision = self._histogram(
            "expert_composer_decision_seconds", "To decide whom to ask.", ("router",), _DECISION
        )
        self._requests = self._counter("requests", "Requests by path and status.", "route status")
        self._routed = self._counter("routed", "Decisions.", "router expert reason")
        self._retries = self._counter("retries", "Calls to an expert that had failed.", "expert")
        self._fallbacks = self._counter(
            "fallbacks", "Failed calls after which another expert was asked.", "expert error_type"
        )
        self._cost = self._counter("cost_usd", "USD by price list, of all calls.", "expert")
        self._shed = self._counter("shed", "Requests refused for want of room.", "model")
        self._limited = self._counter("limited", "Requests over a limit of their key.", "limit")

    def record(self, done: Finished) -> None:
        """Count a request."""
        self._requests[done.route, str(done.status)].inc()
        if (operation := OPERATIONS.get(done.route)) is None:
            return
        visit, expert = done.visit, done.expert
        names = (operation, _provider(done, expert), done.model, expert)
        self._duration[*names, done.error].observe(done.ended - done.began)
        if visit is None:
            if done.status == 503:  # turned away at the door
                self._shed[("",)].inc()
            return
        for trail in visit.trails:
            if trail.decision is not None:
                self._follow(trail, trail.decision, done, operation)
        if visit.error is not None:
            self._refused(visit.error, done)

    def _follow(self, trail: Trail, decision: Decision, done: Finished, operation: str) -> None:
        """Count the decision on one prompt and the calls that followed it."""
        router, steps = decision.router, trail.steps
        self._decision[(router,)].observe((trail.decided or trail.began) - trail.began)
        self._routed[router, decision.primary, _why(decision)].inc()
        for step in steps:
            self._asked(step, done, operation)
        for failed, following in pairwise(steps):
            if not failed.has_failed:
                continue
            if failed.expert == following.expert:
                self._retries[(failed.expert,)].inc()
            else:
                self._fallbacks[failed.expert, error_class(failed.error) or ""].inc()
        if trail.first is not None and steps and steps[-1].error is None:
            self._streamed(trail.first, steps[-1], done, operation)

    def _asked(self, step: Step, done: Finished, operation: str) -> None:
        names = (operation, _provider(done, step.expert), done.model, step.expert)
        self._call[*names, error_class(step.error) or ""].observe(step.seconds)
        if step.error is None:
            self._tokens[*names, "input"].observe(step.usage.prompt_tokens)
            self._tokens[*names, "output"].observe(step.usage.completion_tokens)
        if 0 < step.cost < _MOST_USD:
            self._cost[(step.expert,)].inc(step.cost)

    def _streamed(self, first: float, step: Step, done: Finished, operation: str) -> None:
        names = (operation, _provider(done, step.expert), done.model, step.expert)
        self._first[names].observe(first - done.began)
        if (rest := step.usage.completion_tokens - 1) > 0:
            self._each[names].observe((done.ended - first) / rest)

    def _refused(self, error: BaseException, done: Finished) -> None:
        if isinstance(error, LimitError):
            self._limited[(error.limit,)].inc()
        elif isinstance(error, CapacityError | ExpertOverloadedError):
            self._shed[(done.model,)].inc()

    def _histogram(
        self, name: str, about: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> _Children:
        made = Histogram(name, about, labels, buckets=buckets, registry=self.registry)
        return _Children(made)

    def _counter(self, name: str, about: str, labels: str) -> _Children:
        made = Counter(f"expert_composer_{name}", about, labels.split(), registry=self.registry)
        return _Children(made)


def _provider(done: Finished, expert: str) -> str:
    """Name the backend of an expert; ourselves where none answered."""
    spec = done.visit and done.visit.registry.experts.get(expert)
    return spec.backend if spec else "expert_composer"


def _why(decision: Decision) -> str:
    """Return the kind of a reason: its text holds numbers."""
    if decision.details.get("exploration", {}).get("explored"):
        return "explored"
    if decision.router:
        return "router"
    return "no_router" if decision.candidates else "named"
