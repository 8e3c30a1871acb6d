"""Build the backend of an expert; its weights may load later."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from experts_registry.errors import (
    ArtefactError,
    ComposerError,
    ModelSourceError,
    OffersError,
    PluginError,
    RegistryError,
)
from experts_registry.plugins import load_plugin
from experts_registry.schema import ExpertSpec
from experts_registry.types import LLM, Embedder, Reranker

__all__ = [
    "SETUP_ERRORS",
    "blame_setup",
    "blaming_setup",
    "open_embedder",
    "open_llm",
    "open_reranker",
]

logger = logging.getLogger(__name__)

# Never a request's fault; an artefact is the adapter of an expert.
SETUP_ERRORS = (ArtefactError, ModelSourceError, PluginError, RegistryError)


@contextmanager
def blaming_setup(
    expert: str, kinds: tuple[type[ComposerError], ...] = (ComposerError,)
) -> Iterator[None]:
    """Mark what keeps an expert from being opened, and tell the operator.

    Args:
        expert: its name.
        kinds: errors that mean that here; weights are found only at the first call, which may
            fail for other reasons.
    """
    try:
        yield
    except kinds as error:
        blame_setup(expert, error)
        raise


def blame_setup(expert: str, error: ComposerError) -> None:
    """Mark an error as one that keeps an expert from being opened, and tell the operator once."""
    if error.unopened is None:
        error.unopened = expert
        logger.error("expert %s cannot be opened: %s", expert, error)


def open_llm(spec: ExpertSpec) -> LLM:
    """Build the backend of an LLM; weights may load at its first call.

    Raises:
        RegistryError: the expert is a retriever, or its options are wrong.
        OffersError: the file promises something that the backend does not offer.
    """
    backend = _open(spec, "llm")
    if not isinstance(backend, LLM):
        raise RegistryError(
            f"expert {spec.name!r}: backend {spec.backend!r} is no LLM; use another"
        )
    return backend


def open_embedder(spec: ExpertSpec) -> Embedder:
    """Build the backend of a retriever, as `open_llm` does for an LLM."""
    backend = _open(spec, "retriever")
    if not isinstance(backend, Embedder):
        raise RegistryError(
            f"expert {spec.name!r}: backend {spec.backend!r} does not embed; "
            "use sentence_transformers"
        )
    return backend


def open_reranker(spec: ExpertSpec) -> Reranker:
    """Build the backend of a reranker, as `open_llm` does for an LLM."""
    backend = _open(spec, "reranker")
    if not isinstance(backend, Reranker):
        raise RegistryError(
            f"expert {spec.name!r}: backend {spec.backend!r} does not rank; use cross_encoder"
        )
    return backend


def _open(spec: ExpertSpec, kind: str) -> Any:
    if spec.kind != kind:
        raise RegistryError(f"expert {spec.name!r}: is a {spec.kind}; a {kind} is needed here")
    cls = load_plugin("backends", spec.backend)
    offered = getattr(cls, "offers", ("text",))
    if missing := [offer for offer in spec.offers if offer not in offered]:
        raise OffersError(
            f"expert {spec.name!r}: backend {spec.backend!r} does not offer "
            f"{', '.join(missing)}; it offers {', '.join(offered)}"
        )
    try:
        return cls(spec)
    except ComposerError:
        raise
    except Exception as error:
        raise PluginError(
            f"expert {spec.name!r}: backend {spec.backend!r} cannot be built: "
            f"{type(error).__name__}: {error}"
        ) from error
