"""GET /metrics: the metrics of this process, in Prometheus' text form."""

import asyncio
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp

from composer.http.asked import Asked

__all__ = ["exposition"]


async def exposition(registry: CollectorRegistry, asked: Asked) -> ASGIApp:
    """Tell an admin, and everybody where no key is needed."""
    asked.visit.require_admin()
    # In a thread: a thousand series take milliseconds, in which streams would stand still.
    text = await asyncio.to_thread(generate_latest, _WithoutBirths(registry))
    return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


class _WithoutBirths:
    """A registry without the time at which each series began, which only doubles their number."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Return what is counted."""
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
