import threading

import numpy as np
import pytest

from experts_registry.errors import ArtefactError, OptionError
from experts_registry.index import FLAT_BELOW, VectorIndex, index_type
from experts_registry.retrieval_schema import IndexSpec


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def clustered(n, d=32, clusters=60, seed=0):
    """Unit rows around centres, and queries near some of them."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((clusters, d))
    rows = centres[draw.integers(clusters, size=n)] + 0.5 * draw.standard_normal((n, d))
    queries = centres[draw.integers(clusters, size=50)] + 0.5 * draw.standard_normal((50, d))
    return unit(rows), unit(queries)


@pytest.fixture(scope="module")
def vectors():
    return clustered(10_000)


def nearest(x, queries, k):
    return np.argsort(-(queries @ x.T), axis=1, kind="stable")[:, :k]


def recall(found, truth):
    return np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found, truth, strict=True)])


def test_flat_finds_the_nearest_with_their_cosines(vectors):
    x, queries = vectors
    rows, scores = VectorIndex.build(x, IndexSpec(type="flat")).search(queries, 10)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    assert recall(rows, nearest(x, queries, 10)) > 0.999
    assert scores == pytest.approx(np.take_along_axis(queries @ x.T, rows, axis=1), abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "least", "share"),
    [
        (IndexSpec(type="hnsw"), 0.97, 4),
        (IndexSpec(type="ivf"), 0.9, 1.3),
        (IndexSpec(type="pq"), 0.4, 0.35),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_approximate_kinds_find_nearly_all(vectors, spec, least, share, tmp_path):
    x, queries = vectors
    index = VectorIndex.build(x, spec)
    rows, _ = index.search(queries, 10)
    assert recall(rows, nearest(x, queries, 10)) > least
    index.save(tmp_path / "index")
    assert (tmp_path / "index").stat().st_size < share * x.nbytes
    opened = VectorIndex.open(tmp_path / "index", type=spec.type)
    assert (len(opened), opened.dimensions) == x.shape
    assert np.array_equal(opened.search(queries, 10)[0], rows)


def test_options_trade_recall(vectors):
    x, queries = vectors
    truth = nearest(x, queries, 10)

    def found(**options):
        return recall(VectorIndex.build(x, IndexSpec(**options)).search(queries, 10)[0], truth)

    assert found(type="ivf", clusters=100, probes=1) < found(type="ivf", clusters=100, probes=100)
    assert found(type="ivf", clusters=100, probes=100) > 0.999
    assert found(type="hnsw", links=4, effort=10) < found(type="hnsw", links=32, effort=500)


@pytest.mark.parametrize(
    ("kind", "vectors", "chosen"),
    [
        ("auto", FLAT_BELOW - 1, "flat"),
        ("auto", FLAT_BELOW, "hnsw"),
        ("hnsw", 10, "hnsw"),
        ("flat", 10**6, "flat"),
        ("ivf", 155, "flat"),
        ("ivf", 156, "ivf"),
        ("pq", 9983, "flat"),
        ("pq", 9984, "pq"),
    ],
)
def test_the_kind_goes_by_size_where_it_is_not_told_or_cannot_be_trained(kind, vectors, chosen):
    assert index_type(IndexSpec(type=kind), vectors) == chosen


@pytest.mark.parametrize("kind", ["auto", "flat", "hnsw", "ivf", "pq"])
def test_few_vectors_are_indexed_in_every_kind_and_missing_rows_are_none(kind):
    x, _ = clustered(3, d=7)
    rows, _ = VectorIndex.build(x, IndexSpec(type=kind)).search(x[:2], 5)
    assert rows[:, :3].tolist() == nearest(x, x[:2], 3).tolist()
    assert (rows[:, 3:] == -1).all()


@pytest.mark.parametrize("d", [7, 30])
def test_codes_fit_every_dimension(d):
    x, queries = clustered(10_000, d=d)
    assert recall(VectorIndex.build(x, IndexSpec(type="pq")).search(queries, 10)[0],
                  nearest(x, queries, 10)) > 0.4  # fmt: skip


def test_progress_counts_every_vector(vectors):
    x, _ = vectors
    told = []
    VectorIndex.build(x, IndexSpec(type="flat"), on_added=told.append)
    assert sum(told) == len(x)
    assert len(told) > 1


def test_threads_find_what_one_finds(vectors):
    x, queries = vectors
    index = VectorIndex.build(x, IndexSpec(type="hnsw"))
    alone = [index.search(q[None], 5)[0].tolist() for q in queries]
    found = {}

    def search(name):
        found[name] = [index.search(q[None], 5)[0].tolist() for q in queries]

    threads = [threading.Thread(target=search, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == alone for i in range(8))


def test_clusters_are_never_more_than_vectors_fill():
    x, _ = clustered(400)
    rows, _ = VectorIndex.build(x, IndexSpec(type="ivf", clusters=5000, probes=5000)).search(x, 1)
    assert rows[:, 0].tolist() == list(range(400))


@pytest.mark.parametrize("shape", [(1, 31), (32,), (1, 33)])
def test_queries_of_another_encoder_are_an_error(vectors, shape):
    index = VectorIndex.build(vectors[0][:100])
    with pytest.raises(ArtefactError, match="vectors of 32 dimensions"):
        index.search(np.ones(shape, np.float32), 3)
    with pytest.raises(OptionError, match="k: 0"):
        index.search(vectors[1], 0)


@pytest.mark.parametrize("content", [b"", b"not an index", None])
def test_what_is_no_index_is_an_error(tmp_path, content):
    path = tmp_path / "index"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtefactError, match="is no index"):
        VectorIndex.open(path, type="flat")


def test_a_full_disk_is_an_os_error(vectors, tmp_path):
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"\w"):
        VectorIndex.build(vectors[0]).save(path)
