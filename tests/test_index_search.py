"""The benchmark of index search, on vectors whose nearest are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from index_search import K, grown, made_up, measure, recall


def test_every_kind_is_asked_the_same_and_flat_finds_the_nearest():
    x, queries = made_up(3000, 20, 32)
    measured = measure(x, queries, ("flat", "hnsw"))
    flat, hnsw = measured
    truth = np.argsort(-(queries @ x.T), axis=1)[:, :K]
    assert flat.found == [set(row.tolist()) for row in truth]
    assert recall(flat, flat) == 1
    assert 0.5 < recall(hnsw, flat) <= 1
    assert all(len(one.seconds) == len(queries) for one in measured)


def test_real_vectors_are_multiplied_without_the_queries():
    x, _ = made_up(500, 0, 32)
    more, queries = grown(x, 2000, 50)
    assert (more.shape, queries.shape) == ((2000, 32), (50, 32))
    assert np.linalg.norm(more, axis=1) == pytest.approx(1, abs=1e-5)
    assert (queries @ more.T).max() < 1 - 1e-6
