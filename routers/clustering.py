"""Group embeddings: k-means on the unit sphere."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["kmeans"]

IntArray = NDArray[np.integer[Any]]
_ROUNDS = 50  # centres of embeddings move little after that


def kmeans(x: FloatArray, k: int, *, starts: int = 1) -> tuple[FloatArray, IntArray]:
    """Return unit centres (at most k, d) and the nearest of each row of x (n,).

    The same rows give the same centres. There are fewer than k where fewer rows are distinct.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    x = np.asarray(x, dtype=np.float32)
    k = min(k, len(np.unique(x.round(5), axis=0)))
    with threadpool_limits(1):  # as in the classifier: small matrices, threads only wait
        model = KMeans(k, n_init=starts, max_iter=_ROUNDS, random_state=0).fit(x)
    centres = model.cluster_centers_
    centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return centres, np.argmax(x @ centres.T, axis=1)
