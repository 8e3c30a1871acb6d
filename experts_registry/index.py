"""Search vectors by their inner product, which is the cosine of unit rows; faiss does it.

``flat`` compares a query with every vector. ``hnsw`` walks a graph of near vectors (Malkov,
Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", 2016). ``ivf`` compares with the vectors of the nearest clusters, and ``pq``
with codes of a few bytes for them (Jégou, Douze, Schmid, "Product quantization for nearest
neighbor search", 2011).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import ArtefactError, OptionError
from experts_registry.retrieval_schema import IndexSpec
from experts_registry.types import FloatArray

__all__ = ["SLICE", "Hits", "Rows", "VectorIndex", "index_type"]

FLAT_BELOW = 20_000  # there a flat search takes about as long as hnsw, and misses nothing
_CODES = 256  # of a part of a vector in pq: one byte
_PER_CLUSTER = 39  # vectors that k-means wants for each of its centroids; faiss warns below
_SAMPLE = 64  # and how many it is given at most
SLICE = 8192  # rows that are added between two reports of progress
_CONSTRUCTION = 80  # neighbours that hnsw considers for a new vector

_THREADS = faiss.omp_get_max_threads()  # cores, or what OMP_NUM_THREADS says

Hits = tuple[NDArray[np.int64], NDArray[np.float32]]  # rows and scores, (n, k) each
OnAdded = Callable[[int], None]


class Rows(Protocol):
    """Vectors to index, (n, d) float32: an array, or what reads them slice by slice."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many there are, and how long."""
        ...

    def __getitem__(self, chosen: Any, /) -> FloatArray:
        """Return some, by a slice or by their places."""
        ...


def index_type(spec: IndexSpec, vectors: int) -> str:
    """Return how so many vectors are searched: too few to train ivf or pq are compared all."""
    if spec.type == "auto":
        return "flat" if vectors < FLAT_BELOW else "hnsw"
    need = {"ivf": _PER_CLUSTER * (spec.clusters or 4), "pq": _PER_CLUSTER * _CODES}
    return "flat" if vectors < need.get(spec.type, 0) else spec.type


@dataclass(frozen=True)
class VectorIndex:
    """Vectors that can be searched, by their rows; immutable and safe from any thread.

    Args:
        type: flat, hnsw, ivf or pq.
        index: faiss' own.
    """

    type: str
    index: Any

    @classmethod
    def build(
        cls, x: Rows, spec: IndexSpec | None = None, *, on_added: OnAdded | None = None
    ) -> Self:
        """Index unit rows, (n, d) float32.

        Args:
            x: the rows.
            spec: how they are searched.
            on_added: told how many more rows are in.

        Raises:
            OptionError: there are more clusters than vectors can fill.
        """
        spec = spec or IndexSpec()
        n, d = x.shape
        kind = index_type(spec, n)
        faiss.omp_set_num_threads(_THREADS)
        index = _MAKE[kind](n, d, spec)
        if not index.is_trained:
            index.train(_sample(x, index))
        for start in range(0, n, SLICE):
            rows = np.ascontiguousarray(x[start : start + SLICE], dtype=np.float32)
            index.add(rows)
            if on_added is not None:
                on_added(len(rows))
        return cls(kind, index)

    @classmethod
    def open(cls, path: Path, *, type: str) -> Self:
        """Map a saved index into memory: processes share it, and it is read where it is searched.

        Raises:
            ArtefactError: there is none, or it is damaged.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise ArtefactError(f"{path}: is no index ({_first_line(error)})") from None
        return cls(type, index)

    def save(self, path: Path) -> None:
        """Write it to a file.

        Raises:
            OSError: the disk is full or read-only.
        """
        path.open("wb").close()  # faiss says less of why a file cannot be written
        try:
            faiss.write_index(self.index, str(path))
        except RuntimeError as error:
            raise OSError(f"{_first_line(error)}") from None

    def __len__(self) -> int:
        """Return how many vectors there are."""
        return int(self.index.ntotal)

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self.index.d)

    def search(self, x: FloatArray, k: int) -> Hits:
        """Return the rows of the ``k`` best vectors for each query, best first, and their scores.

        Where there are fewer, or an approximate search finds fewer, rows of -1 fill up.

        Raises:
            OptionError: ``k`` is below 1.
            ArtefactError: the queries have other dimensions than the vectors.
        """
        if k < 1:
            raise OptionError(f"k: {k} is below 1; use 1 or more")
        if x.ndim != 2 or x.shape[1] != self.dimensions:
            raise ArtefactError(
                f"index: holds vectors of {self.dimensions} dimensions, the query has shape "
                f"{x.shape}; embed it with the retriever that made the index"
            )
        # By itself faiss starts as many threads as there are cores for each thread that searches.
        faiss.omp_set_num_threads(max(1, min(len(x), _THREADS)))
        scores, rows = self.index.search(np.ascontiguousarray(x, dtype=np.float32), k)
        return rows, scores


def _flat(n: int, d: int, spec: IndexSpec) -> Any:
    return faiss.IndexFlatIP(d)


def _hnsw(n: int, d: int, spec: IndexSpec) -> Any:
    index = faiss.IndexHNSWFlat(d, spec.links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = max(_CONSTRUCTION, spec.links)
    index.hnsw.efSearch = spec.effort
    return index


def _ivf(n: int, d: int, spec: IndexSpec) -> Any:
    clusters = _clusters(n, spec)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, clusters, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(spec.probes or _probes(clusters), clusters)
    return index


def _pq(n: int, d: int, spec: IndexSpec) -> Any:
    clusters, coarse = _clusters(n, spec), faiss.IndexFlatIP(d)
    width = next(w for w in (4, 3, 2, 1) if d % w == 0)  # numbers that share a byte
    index = faiss.IndexIVFPQ(coarse, d, clusters, d // width, 8, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(spec.probes or _probes(clusters), clusters)
    return index


_MAKE: dict[str, Callable[[int, int, IndexSpec], Any]] = {
    "flat": _flat, "hnsw": _hnsw, "ivf": _ivf, "pq": _pq,
}  # fmt: skip


def _clusters(n: int, spec: IndexSpec) -> int:
    most = max(1, n // _PER_CLUSTER)
    if spec.clusters is not None and spec.clusters > most:
        raise OptionError(
            f"index.clusters: {spec.clusters} are too many for {n} vectors; use {most} or fewer, "
            "or leave it out"
        )
    return spec.clusters or min(most, round(4 * sqrt(n)))


def _probes(clusters: int) -> int:
    return max(8, clusters // 32)


def _sample(x: Rows, index: Any) -> FloatArray:
    """Return rows to train on, drawn alike at every build."""
    most = _SAMPLE * max(index.nlist, _CODES)
    n = x.shape[0]
    if n <= most:
        return np.ascontiguousarray(x[0:n], dtype=np.float32)
    rows = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
    return np.ascontiguousarray(x[rows], dtype=np.float32)


def _first_line(error: Exception) -> str:
    """Return what faiss says, without the C++ around it."""
    return str(error).partition("\n")[0].rpartition("Error: ")[2].strip() or type(error).__name__
