"""What RouterRetriever was compared with: other ways to choose a retriever for each query.

Lee et al., https://arxiv.org/abs/2409.02685, section 5; each returns a column per test query, (n,).
All that is learned is learned on train, from the embeddings that the router reads.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.baselines import category_table
from routers.data import RoutingDataset
from routers.pilot_library import winners

__all__ = ["IntArray", "classification_head", "dataset_label"]

IntArray = NDArray[np.integer[Any]]
_FEWEST = 8  # queries of a class
_PER_DATASET = 100  # training queries that stand for their dataset, as published


def classification_head(x_train: FloatArray, train: RoutingDataset, x: FloatArray) -> IntArray:
    """Predict who is best with a softmax head, fitted to queries that one retriever alone wins.

    Classes are cut to one size, that of the smallest, as published; one with too few to be
    learned is left out, and where fewer than two are left the best on average is asked.
    """
    from sklearn.linear_model import LogisticRegression

    share = winners(train.quality)
    alone = (share == 1).any(axis=1)
    label = share.argmax(axis=1)
    classes, count = np.unique(label[alone], return_counts=True)
    classes, count = classes[count >= _FEWEST], count[count >= _FEWEST]
    if len(classes) < 2:
        return np.full(len(x), int(np.nanmean(train.quality, axis=0).argmax()))
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(alone & (label == c)))[: count.min()] for c in classes]
    kept = np.concatenate(rows)
    head = LogisticRegression(max_iter=1000).fit(x_train[kept], label[kept])
    return np.asarray(head.predict(x), dtype=np.intp)


def dataset_label(x_train: FloatArray, train: RoutingDataset, x: FloatArray) -> IntArray:
    """Ask the retriever that is best on the dataset of the nearest training query.

    A hundred random training queries stand for each dataset.
    """
    rng = np.random.default_rng(0)
    rows = [
        rng.permutation(np.flatnonzero(train.labels == c))[:_PER_DATASET]
        for c in np.unique(train.labels)
    ]
    kept = np.concatenate(rows)
    nearest = kept[(x @ x_train[kept].T).argmax(axis=1)]
    best = category_table(train, train).choice
    if best is None:
        raise TypeError("category_table: chooses for every query")
    chosen: IntArray = best[nearest]
    return chosen
