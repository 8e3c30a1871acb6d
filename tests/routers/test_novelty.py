import numpy as np
import pytest

from routers.novelty import closeness, held_out_closeness


def domains(n, k=5, *, d=32, seed=0):
    """Queries around k directions; the directions are the same for every seed."""
    directions = np.linalg.qr(np.random.default_rng(99).normal(size=(d, k)))[0].T
    rng = np.random.default_rng(seed)
    label = rng.integers(k, size=n)
    return directions[label] + 0.12 * rng.normal(size=(n, d)), label


def centres(x, label):
    return np.stack([x[label == c].mean(axis=0) for c in np.unique(label)])


def test_held_out_closeness_is_that_of_centres_made_without_the_query():
    x, label = domains(60)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    held = held_out_closeness(x, centres(x, label))
    for i in range(0, 60, 7):
        others = np.delete(np.arange(60), i)
        assert held[i] == pytest.approx(
            closeness(x[i : i + 1], centres(x[others], label[others]))[0], abs=1e-6
        )
    assert (held <= closeness(x, centres(x, label)) + 1e-9).all()


def test_a_query_that_is_alone_in_its_cluster_is_close_to_the_others_or_to_nothing():
    x = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    held = held_out_closeness(x, x[:2])
    assert held.tolist() == pytest.approx([0.6, 1, 1])
    assert held_out_closeness(x[:1], x[:1]).tolist() == [-1]
