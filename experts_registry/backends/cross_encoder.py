"""Score how well texts answer a query with a cross-encoder, which reads both together.

It is slower than comparing embeddings, and better: for the few best that an embedder found.
"""

import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from experts_registry.backends.local_models import (
    DTYPES,
    bounded,
    computing,
    encodable,
    hub_arguments,
    loading,
    pick_device,
)
from experts_registry.backends.options import check_offers, closed, parse_options
from experts_registry.errors import ExpertReplyError
from experts_registry.schema import ExpertSpec
from experts_registry.sources import locate
from experts_registry.types import FloatArray

__all__ = ["CrossEncoderReranker", "Options"]


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    max_length: int | None = Field(
        None, ge=1, description="Tokens of query and text that are read; by default the model's."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Pairs that are scored together.")
    device: str = Field("auto", description="auto (the GPU if there is one), cpu, cuda, cuda:1.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the weights; the scores are float32."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")


class CrossEncoderReranker:
    """A cross-encoder of one label in this process, loaded at the first call."""

    offers: tuple[str, ...] = ()

    def __init__(self, spec: ExpertSpec) -> None:
        self.spec = spec
        self.options = parse_options(Options, spec)
        check_offers(spec, self.offers)
        # A tokenizer keeps its padding and truncation as state: one thread at a time.
        self._lock = threading.Lock()
        self._model: Any = None
        self._closed = False

    def load(self) -> None:
        """Load the model now instead of at the first call."""
        with self._lock:
            self._ready()

    def relevance(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Return one score per text, (n,), by the model's own activation: usually in [0, 1]."""
        with self._lock:
            model = self._ready()
            length = self.options.max_length or model.tokenizer.model_max_length
            pairs = [[encodable(bounded(text, length)) for text in (query, one)] for one in texts]
            with computing(self.spec):
                scores = np.asarray(
                    model.predict(
                        pairs, batch_size=self.options.batch_size, show_progress_bar=False
                    ),
                    dtype=np.float32,
                )
        if not np.isfinite(scores).all():
            raise ExpertReplyError(
                f"expert {self.spec.name!r}: the model computed NaN; use options.dtype float32"
            )
        return scores

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._closed, self._model = True, None

    def _ready(self) -> Any:
        if self._closed:
            raise closed(self.spec)
        if self._model is None:
            with loading(self.spec):
                self._model = _load(self.spec, self.options)
        return self._model


def _load(spec: ExpertSpec, options: Options) -> Any:
    from sentence_transformers import CrossEncoder  # takes seconds: not before it is needed

    hub = hub_arguments(
        spec, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    model = CrossEncoder(
        locate(spec),
        device=str(pick_device(spec, options.device)),
        max_length=options.max_length,
        model_kwargs={"dtype": DTYPES[options.dtype]},
        **hub,
    )
    if model.num_labels != 1:
        raise ValueError(f"it has {model.num_labels} labels, and a reranker has one")
    return model
