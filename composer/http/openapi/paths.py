"""Every path that the door can serve, and what it takes and answers."""

from collections.abc import Mapping

from composer.http.openapi.chat import CHAT, STORED
from composer.http.openapi.completions import COMPLETIONS
from composer.http.openapi.decisions import DECISION, FEEDBACK, ROUTE
from composer.http.openapi.embeddings import EMBEDDINGS
from composer.http.openapi.live import METRICS, PAGE, STATUS
from composer.http.openapi.models import MODEL, MODELS
from composer.http.openapi.operation import Operation
from composer.http.openapi.rerank import RERANK, RERANK_2
from composer.http.openapi.responses import RESPONSES
from composer.http.openapi.retrieval import RETRIEVE
from composer.http.openapi.state import DOCUMENT, HEALTH, READY, REGISTRY

__all__ = ["OPERATIONS"]

OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/chat/completions": CHAT,
    "GET /v1/chat/completions": STORED,
    "POST /v1/completions": COMPLETIONS,
    "POST /v1/responses": RESPONSES,
    "POST /v1/embeddings": EMBEDDINGS,
    "POST /v1/rerank": RERANK,
    "POST /v2/rerank": RERANK_2,
    "POST /v1/retrieve": RETRIEVE,
    "GET /v1/models": MODELS,
    "GET /v1/models/{id}": MODEL,
    "POST /v1/route": ROUTE,
    "POST /v1/feedback": FEEDBACK,
    "GET /v1/decisions/{id}": DECISION,
    "GET /admin/registry": REGISTRY,
    "GET /admin/status": STATUS,
    "GET /metrics": METRICS,
    "GET /ui": PAGE,
    "GET /health": HEALTH,
    "GET /health/ready": READY,
    "GET /openapi.json": DOCUMENT,
}
