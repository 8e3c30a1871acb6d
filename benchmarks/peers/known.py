"""Embeddings that are there already: what is left to time is what a router itself takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experts_registry.types import Embedder, FloatArray, Role
from peers.method import Queries
from routers.base import window
from routers.data import RoutingDataset

__all__ = ["KnownEncoder"]


@dataclass(frozen=True)
class KnownEncoder:
    """Looks embeddings up."""

    rows: Mapping[str, FloatArray]
    digest: str = "looked up"

    @staticmethod
    def of(data: RoutingDataset, encoder: Embedder) -> "KnownEncoder":
        """Embed all queries of a table, as routers read them."""
        texts = list(dict.fromkeys(window(query) for query in data.queries))
        rows = encoder.embed(texts, role="query")
        return KnownEncoder(dict(zip(texts, rows, strict=True)), encoder.digest)

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one row per text (n, d)."""
        return np.stack([self.rows[text] for text in texts])

    def queries(self, data: RoutingDataset) -> Queries:
        """Return what methods are told of the data's queries."""
        x = self.embed([window(query) for query in data.queries], role="query")
        return Queries(texts=data.queries, x=x, category=data.category)

    def close(self) -> None:
        """Nothing is held."""
