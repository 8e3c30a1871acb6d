"""What one writes without us: sentence-transformers and faiss, as their documentation joins them.

https://sbert.net/examples/sentence_transformer/applications/semantic-search: encode the corpus once
with unit rows, compare a query with every row by the inner product.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer

from experts_registry.types import FloatArray

__all__ = ["PlainRetrieval"]


class PlainRetrieval:
    """A corpus in memory and a flat index of it.

    Args:
        model: folder of the encoder.
        corpus: passage id -> text.
        cache: folder that keeps the corpus' vectors between runs.
    """

    def __init__(self, model: Path, corpus: Mapping[str, str], *, cache: Path) -> None:
        self.model = SentenceTransformer(str(model), device="cpu")
        self._names = list(corpus)
        x = self._kept(list(corpus.values()), cache)
        self._index = faiss.IndexFlatIP(x.shape[1])
        self._index.add(x)

    def embed(self, texts: list[str]) -> FloatArray:
        """Return one unit row per text, (n, d)."""
        x: FloatArray = self.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return x

    def search(self, query: str, k: int) -> dict[str, float]:
        """Return passage id -> cosine, best first."""
        scores, rows = self._index.search(self.embed([query]), k)
        return {
            self._names[row]: float(score)
            for row, score in zip(rows[0], scores[0], strict=True)
            if row >= 0
        }

    def _kept(self, texts: list[str], cache: Path) -> FloatArray:
        name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        path = cache / f"plain-{name}.npy"
        if not path.exists():
            np.save(path, self.embed(texts))
        x: FloatArray = np.load(path)
        return x
