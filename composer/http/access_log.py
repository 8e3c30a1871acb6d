"""One log line a request: names and numbers, neither prompts nor keys."""

import logging
from typing import Any

from composer.http.finished import Finished

__all__ = ["AccessLine", "write_line"]

logger = logging.getLogger("composer.access")

# Asked for every few seconds, and never of interest.
_PROBES = ("/health", "/health/ready", "/metrics", "/admin/status")


class AccessLine:
    """A finished request as a log message; formatters that know it may take its fields."""

    def __init__(self, done: Finished) -> None:
        self._done = done

    def fields(self) -> dict[str, Any]:
        """Return what is known of it; what does not apply is left out."""
        done, visit = self._done, self._done.visit
        fields: dict[str, Any] = {
            "request_id": done.request_id,
            "method": done.method,
            "route": done.route,
            "status": done.status,
            "ms": round((done.ended - done.began) * 1000, 2),
        }
        if done.client_request_id:
            fields["client_request_id"] = done.client_request_id
        if done.error:
            fields["error"] = done.error
        if visit is not None and visit.key is not None:
            fields["key"] = visit.key.id
        if visit is not None and visit.model:
            steps, asked = visit.steps, visit.blamed
            fields |= {
                "model": visit.model,
                "expert": done.expert or (asked.expert if asked else ""),
                "calls": len(steps),
                "prompt_tokens": sum(step.usage.prompt_tokens for step in steps),
                "completion_tokens": sum(step.usage.completion_tokens for step in steps),
                "usd": float(f"{sum(step.cost for step in steps):.10g}"),
            }
        return fields

    def __str__(self) -> str:
        known = self.fields()
        text = f"{known['request_id']} {known['method']} {known['route']} {known['status']}"
        text += f" {known['ms']:.1f} ms"
        if "client_request_id" in known:
            text += f", of client {known['client_request_id']!r}"  # quoted: it may look like fields
        if "model" in known:
            tokens = known["prompt_tokens"] + known["completion_tokens"]
            text += f", {known['model']} -> {known['expert'] or '-'}, {known['calls']} calls"
            text += f", {tokens} tokens, {known['usd']:.4g} USD"
        return f"{text}, {known['error']}" if "error" in known else text


def write_line(done: Finished) -> None:
    """Log a finished request; probes only where everything is logged."""
    level = logging.DEBUG if done.route in _PROBES else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, AccessLine(done))
