"""What a request came to, for metrics, traces and the access log: numbers and names, no texts."""

from typing import NamedTuple

from starlette.requests import ClientDisconnect

from composer.http.visit import Visit
from experts_registry.errors import ComposerError

__all__ = ["OPERATIONS", "Finished"]

# The generative endpoints, by OpenTelemetry's names of what they do.
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/v1/retrieve": "retrieval",
}


class Finished(NamedTuple):
    """One request at its end.

    Args:
        request_id: what the client was told.
        method: of HTTP.
        route: the path as it is served, ``/v1/models/{id:path}``: clients choose the rest of it.
        status: what was sent; 499 where the client left before.
        began: in `time.perf_counter` seconds.
        ended: the same.
        visit: what was asked and answered; None where it did not come so far.
        client_request_id: what the client calls it; empty where it says nothing.
    """

    request_id: str
    method: str
    route: str
    status: int
    began: float
    ended: float
    visit: Visit | None
    client_request_id: str = ""

    @property
    def model(self) -> str:
        """What was asked for, if it is a name of the expert file."""
        return "" if self.visit is None else self.visit.model

    @property
    def expert(self) -> str:
        """Who answered; the first one's, of several answers."""
        if self.visit is None or not self.visit.answers:
            return ""
        return self.visit.answers[0].expert

    @property
    def error(self) -> str:
        """Class of what went wrong, or the status; empty where all went well."""
        error = None if self.visit is None else self.visit.error
        if error is None:
            return str(self.status) if self.status >= 400 else ""
        if isinstance(error, ClientDisconnect):
            return "ClientDisconnect"
        # Classes of plug-ins are not ours to count.
        return type(error).__name__ if isinstance(error, ComposerError) else "_OTHER"
