"""Encode every text once: a cache in front of an encoder."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from experts_registry.types import Embedder, FloatArray, Role

__all__ = ["CachedEncoder"]


class CachedEncoder:
    """The same vectors as another encoder, the most recent ones kept; safe across threads.

    Args:
        encoder: computes what is not kept.
        capacity: texts kept; one of 384 dimensions takes 1.5 kB, and the length of its text.
    """

    def __init__(self, encoder: Embedder, capacity: int = 100_000) -> None:
        self.encoder = encoder
        self.digest = encoder.digest
        self._capacity = max(1, capacity)
        self._rows: OrderedDict[tuple[str, Role], FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def is_quick(self) -> bool:
        """Whether a query takes the encoder less than to wake a thread."""
        return bool(getattr(self.encoder, "is_quick", False))

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one unit row per text (n, d); only those that are not kept are computed."""
        if not texts:
            return self.encoder.embed(texts, role=role)
        with self._lock:
            found = {text: self._row(text, role) for text in texts}
        if new := [text for text, row in found.items() if row is None]:
            # Outside the lock: others with kept texts need not wait for the encoder.
            computed = self.encoder.embed(new, role=role)
            found |= dict(zip(new, computed, strict=True))
            with self._lock:
                self._keep(new, computed, role)
        return np.stack([row for text in texts if (row := found[text]) is not None])

    def close(self) -> None:
        """Free the encoder."""
        self.encoder.close()

    def _row(self, text: str, role: Role) -> FloatArray | None:
        row = self._rows.get((text, role))
        if row is not None:
            self._rows.move_to_end((text, role))
        return row

    def _keep(self, texts: Sequence[str], rows: FloatArray, role: Role) -> None:
        for text, row in zip(texts, rows, strict=True):
            self._rows[text, role] = row.copy()  # not a view, which would keep the whole batch
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
