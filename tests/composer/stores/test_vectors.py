import numpy as np
import pytest

from composer.stores.vectors import Vectors, text_key
from experts_registry.errors import ArtefactError, ExpertReplyError

KEYS = [text_key(str(i)) for i in range(40)]


def unit(n, d=8, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vectors" / "x.vectors"


def filled(path, x):
    with Vectors.opened(path) as vectors:
        vectors.add(KEYS[:30], x[:30])
        vectors.add(KEYS[30:], x[30:])


def test_vectors_come_back_by_their_texts(path):
    x = unit(40)
    filled(path, x)
    with Vectors.opened(path) as vectors:
        assert vectors.dimensions == 8
        asked = [KEYS[i] for i in (31, 2, 2, 0)]
        assert np.array_equal(vectors.of(asked)[0:4], x[[31, 2, 2, 0]])
        assert np.array_equal(vectors.of(asked)[np.array([3, 1])], x[[0, 2]])
        assert text_key("unheard of") not in vectors


@pytest.mark.parametrize("cut", [1, 40, 63, 64, 65, 9 * 64 + 5])
def test_a_torn_end_costs_only_what_it_tore(path, cut):
    x = unit(40)
    filled(path, x)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = (len(whole) - cut - 16) // 64
    with Vectors.opened(path) as vectors:
        assert [key in vectors for key in KEYS] == [i < left for i in range(40)]
        vectors.add(KEYS[left:], x[left:])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 3, 15])
def test_a_torn_head_is_begun_anew(path, size):
    path.parent.mkdir()
    path.write_bytes(b"ECVECTORxxxxxxxx"[:size])
    filled(path, unit(40))
    with Vectors.opened(path) as vectors:
        assert len(vectors) == 40


def test_zeros_that_a_power_cut_left_are_no_vectors(path):
    x = unit(40)
    filled(path, x)
    whole = bytearray(path.read_bytes())
    whole[16 + 35 * 64 + 32 :] = bytes(len(whole) - (16 + 35 * 64 + 32))
    path.write_bytes(whole)
    with Vectors.opened(path) as vectors:
        assert [key in vectors for key in KEYS] == [i < 35 for i in range(40)]
        vectors.add(KEYS[35:], x[35:])
        assert np.array_equal(vectors.of(KEYS)[0:40], x)


def test_texts_that_are_gone_are_forgotten_where_they_are_most(path):
    keys = [text_key(f"text {i}") for i in range(3000)]
    x = unit(3000)
    with Vectors.opened(path) as vectors:
        vectors.add(keys, x)
        vectors.forget_all_but(keys[::2])
    size = path.stat().st_size
    with Vectors.opened(path) as vectors:
        vectors.forget_all_but(keys[::300])
    assert path.stat().st_size < size / 100
    with Vectors.opened(path) as vectors:
        assert np.array_equal(vectors.of(keys[::300])[0:10], x[::300])
        assert keys[1] not in vectors


def test_another_file_is_not_overwritten(path):
    path.parent.mkdir()
    path.write_bytes(b"something else that matters")
    with pytest.raises(ArtefactError, match="holds no vectors of a store"), Vectors.opened(path):
        pass
    assert path.read_bytes() == b"something else that matters"


def test_other_dimensions_under_one_digest_are_an_error(path):
    filled(path, unit(40))
    with Vectors.opened(path) as vectors, pytest.raises(ArtefactError, match="8 dimensions"):
        vectors.add([text_key("new")], unit(1, d=9))


@pytest.mark.parametrize(
    "x",
    [
        unit(2),
        np.zeros((1, 8), np.float32),
        unit(1) * 2,
        unit(1) * np.nan,
        unit(1) * np.inf,
        unit(1)[0],
    ],
)
def test_what_is_not_one_unit_row_per_text_is_refused(path, x):
    with Vectors.opened(path) as vectors, pytest.raises(ExpertReplyError, match="of length 1"):
        vectors.add([text_key("new")], x)
    assert path.stat().st_size == 0
