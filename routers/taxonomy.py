"""Where the categories come from: given labels, a file that people edit, or clusters."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import DataError, OptionError, nearest
from experts_registry.lines import parse_yaml, read_text
from experts_registry.types import FloatArray
from routers.clustering import kmeans
from routers.data import RoutingDataset
from routers.splits import folds
from routers.table import fit_table

__all__ = ["Labels", "Taxonomy", "label", "read_taxonomy"]

IntArray = NDArray[np.integer[Any]]
# Nearest neighbours that must agree before an unlabelled query adopts their label.
NEIGHBOURS, AGREE, CLOSE, ROUNDS = 10, 0.8, 0.45, 3
CLUSTERS = (2, 4, 8, 16, 32)
_ROWS_PER_CLUSTER, _STARTS = 10, 3


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Categories as people wrote them: one sentence each, and experts pinned to some."""

    sentences: Mapping[str, str] = field(default_factory=dict)
    pin: Mapping[str, str] = field(default_factory=dict)
    source: str = "categories"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The category of each query.

    Args:
        names: (n) labels; an empty string where none could be found.
        source: what they come from.
        adopted: how many were taken over from neighbours.
        unlabelled: how many have none.
    """

    names: tuple[str, ...]
    source: Literal["labels", "sentences", "clusters"]
    adopted: int = 0
    unlabelled: int = 0


def read_taxonomy(source: str | Mapping[str, Any] | None) -> Taxonomy:
    """Read categories from a YAML file, or from its content.

    Raises:
        OptionError: it is not ``{categories: {name: sentence}, pin: {name: expert}}``.
    """
    if source is None:
        return Taxonomy()
    if isinstance(source, str):
        content: Mapping[str, Any] = parse_yaml(read_text(Path(source)), source).data
        where = source
    else:
        content, where = source, "categories"
        if not set(content) & {"categories", "pin"}:
            content = {"categories": content}
    known = ("categories", "pin")
    if unknown := set(content) - set(known):
        bad = min(unknown)
        raise OptionError(f"{where}: {bad!r} is not one of categories, pin{nearest(bad, known)}")
    parts = {key: _texts(content.get(key) or {}, f"{where}: {key}") for key in known}
    return Taxonomy(sentences=parts["categories"], pin=parts["pin"], source=where)


def _texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{where}: is not a mapping; write one 'name: text' a line")
    for name, text in value.items():
        if not (isinstance(name, str) and name and isinstance(text, str) and text.strip()):
            raise OptionError(f"{where}: {name!r}: {text!r} is not a text; write 'name: text'")
    return dict(value)


def label(
    x: FloatArray,
    data: RoutingDataset,
    taxonomy: Taxonomy,
    encode: Callable[[Sequence[str]], FloatArray],
) -> Labels:
    """Label every query that can be: from its label, its neighbours, sentences, or clusters.

    Raises:
        DataError: a label is not in the taxonomy.
    """
    if taxonomy.sentences:
        _check(data, taxonomy)
    if data.categories:
        return _adopt(x, data)
    if taxonomy.sentences:
        names = tuple(taxonomy.sentences)
        rows = encode(list(taxonomy.sentences.values()))  # (c, d)
        nearest_sentence = np.argmax(x @ rows.T, axis=1)
        return Labels(names=tuple(names[c] for c in nearest_sentence), source="sentences")
    cluster = _clusters(x, data)
    words = _cluster_names(data.queries, cluster)
    return Labels(names=tuple(words[c] for c in cluster), source="clusters")


def _check(data: RoutingDataset, taxonomy: Taxonomy) -> None:
    for name, query in zip(data.category, data.ids, strict=True):
        if name and name not in taxonomy.sentences:
            listed = ", ".join(taxonomy.sentences)
            raise DataError(
                f"{taxonomy.source}: query {query!r} has category {name!r}, which is not one of "
                f"{listed}{nearest(name, taxonomy.sentences)}; add it, or relabel the query"
            )


def _adopt(x: FloatArray, data: RoutingDataset) -> Labels:
    """Spread labels to close queries whose labelled neighbours agree, in a few rounds."""
    labels = data.labels.copy()
    before = int((labels < 0).sum())
    for _ in range(ROUNDS):
        open_rows, known = np.flatnonzero(labels < 0), np.flatnonzero(labels >= 0)
        found = np.full(len(open_rows), -1)
        for start in range(0, len(open_rows), 1000):
            part = slice(start, start + 1000)
            found[part] = _vote(x[open_rows[part]] @ x[known].T, labels[known])
        labels[open_rows] = found
        if not (found >= 0).any():
            break
    names = tuple(data.categories[c] if c >= 0 else "" for c in labels)
    left = int((labels < 0).sum())
    return Labels(names=names, source="labels", adopted=before - left, unlabelled=left)


def _vote(similarity: FloatArray, labels: IntArray) -> IntArray:
    """Return the label the neighbours agree on (n,), -1 where they do not."""
    k = min(NEIGHBOURS, similarity.shape[1])
    near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    votes = (labels[near][:, :, None] == np.arange(labels.max() + 1)).sum(axis=1)  # (n, c)
    agreed = (votes.max(axis=1) >= AGREE * k) & (similarity.max(axis=1) >= CLOSE)
    return np.where(agreed, votes.argmax(axis=1), -1)


def _clusters(x: FloatArray, data: RoutingDataset) -> IntArray:
    """Cluster the queries; as many clusters as route best on held-out queries."""
    distinct = len(np.unique(x, axis=0))
    sizes = [k for k in CLUSTERS if k * _ROWS_PER_CLUSTER <= distinct] or [1]
    fold = folds(data, 5) if len(sizes) > 1 else np.zeros(len(x), dtype=np.intp)
    # Of equals the coarser: max keeps the first.
    best = max(sizes, key=lambda k: _routed(x, data.quality, fold, k) if len(sizes) > 1 else 0.0)
    assigned: IntArray = kmeans(x, best, starts=_STARTS)[1]
    return assigned


def _routed(x: FloatArray, quality: FloatArray, fold: IntArray, k: int) -> float:
    """Return the mean quality of sending each held-out query to its cluster's best expert."""
    reached = np.full(len(x), np.nan)
    for f in range(int(fold.max()) + 1):
        held = fold == f
        if np.isnan(quality[~held]).all() or len(np.unique(x[~held], axis=0)) < k:
            continue
        centres, cluster = kmeans(x[~held], k, starts=_STARTS)
        best = np.argmax(fit_table(quality[~held], cluster, k).quality, axis=1)  # (k,)
        rows = np.flatnonzero(held)
        reached[rows] = quality[rows, best[np.argmax(x[held] @ centres.T, axis=1)]]
    return -1.0 if np.isnan(reached).all() else round(float(np.nanmean(reached)), 6)


def _cluster_names(queries: Sequence[str], cluster: IntArray) -> dict[int, str]:
    """Name each cluster by the three words that set it apart."""
    words = [set(re.findall(r"[^\W\d_]{3,}", query.lower())) for query in queries]
    total = Counter(word for found in words for word in found)
    names: dict[int, str] = {}
    for c in np.unique(cluster):
        own = Counter(word for i in np.flatnonzero(cluster == c) for word in words[i])
        inside = int((cluster == c).sum())
        outside = max(len(queries) - inside, 1)

        def apart(word: str, own: Counter[str] = own, n: int = inside, m: int = outside) -> float:
            here, there = own[word] / n, (total[word] - own[word]) / m
            return float(here * np.log((here + 0.01) / (there + 0.01)))

        top = sorted(own, key=lambda word: (-apart(word), word))[:3]
        name = "-".join(top) or "cluster"
        names[int(c)] = name if name not in names.values() else f"{name}-{c}"
    return names
