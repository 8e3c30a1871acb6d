import numpy as np
import pytest

from experts_registry.errors import DataError, OptionError, RegistryError
from routers.data import RoutingDataset
from routers.table import fit_table, mean_cost
from routers.taxonomy import Taxonomy, label, read_taxonomy
from routers.testing import synthetic_outcomes

NAN = float("nan")


def strip(data, rows):
    """Take the labels of some rows away."""
    names = np.array(data.category, dtype=object)
    names[rows] = ""
    return data.with_category(names.tolist())


def found(data, encoder, taxonomy=None):
    def encode(texts):
        return encoder.embed(texts, role="query")

    return label(encode(data.queries), data, taxonomy or Taxonomy(), encode)


def test_given_labels_are_kept(encoder, outcomes):
    assert found(outcomes, encoder).names == outcomes.category


def test_unlabelled_queries_adopt_what_their_neighbours_agree_on(encoder):
    data = synthetic_outcomes(n=400, categories=3)
    labels = found(strip(data, slice(0, 100)), encoder)
    assert labels.adopted + labels.unlabelled == 100
    assert labels.adopted > 15
    right = sum(a == b for a, b in zip(labels.names[:100], data.category, strict=False) if a)
    assert right / labels.adopted > 0.95


def test_a_query_far_from_all_labelled_ones_stays_unlabelled(encoder):
    data = synthetic_outcomes(n=60)
    odd = RoutingDataset(
        queries=(*data.queries, "zzz qqq xxx www"),
        experts=data.experts,
        quality=np.vstack([data.quality, [[1, 1, 1]]]),
        category=(*data.category, ""),
    )
    labels = found(odd, encoder)
    assert (labels.names[-1], labels.unlabelled) == ("", 1)


def test_sentences_label_where_nothing_else_does(encoder):
    data = RoutingDataset(
        queries=("add these numbers", "translate this word", "add more numbers"),
        experts=("a",),
        quality=np.ones((3, 1)),
    )
    sentences = {"math": "Add or multiply numbers.", "words": "Translate a word or a sentence."}
    labels = found(data, encoder, Taxonomy(sentences=sentences))
    assert labels.names == ("math", "words", "math")
    assert labels.source == "sentences"


def test_clusters_are_found_and_named_by_their_words(encoder):
    topics = ("python function list {}", "french word dinner {}")
    queries = [topic.format(f"w{i}") for i in range(40) for topic in topics]
    quality = np.array([[1.0, 0.0], [0.0, 1.0]] * 40)
    data = RoutingDataset(queries=tuple(queries), experts=("a", "b"), quality=quality)
    labels = found(data, encoder)
    assert labels.source == "clusters"
    assert set(labels.names[::2]) == {"function-list-python"}
    assert set(labels.names[1::2]) == {"dinner-french-word"}


def test_a_handful_of_queries_is_one_cluster(encoder):
    data = RoutingDataset(queries=("one", "two"), experts=("a",), quality=np.ones((2, 1)))
    assert len(set(found(data, encoder).names)) == 1


def test_a_label_outside_the_file_is_an_error_with_the_nearest_one(encoder, outcomes):
    taxonomy = Taxonomy(sentences={"category-0": "x", "category-1": "x", "category-22": "x"})
    with pytest.raises(DataError, match=r"'category-2', which is not one of .*mean 'category-22'"):
        found(outcomes, encoder, taxonomy)


def test_a_file_and_its_content_say_the_same(tmp_path):
    path = tmp_path / "categories.yaml"
    path.write_text("categories:\n  math: Numbers.\npin:\n  math: a\n")
    content = {"categories": {"math": "Numbers."}, "pin": {"math": "a"}}
    for source in (str(path), content):
        taxonomy = read_taxonomy(source)
        assert (dict(taxonomy.sentences), dict(taxonomy.pin)) == (
            {"math": "Numbers."},
            {"math": "a"},
        )
    assert read_taxonomy({"math": "Numbers."}).sentences == {"math": "Numbers."}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "categorys: {}\n",
            r"'categorys' is not one of categories, pin; did you mean 'categories'",
        ),
        ("categories: [math]\n", "categories: is not a mapping"),
        ("categories: {math: 3}\n", "'math': 3 is not a text"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_taxonomy(str(tmp_path / "c.yaml"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RegistryError, match=r"none\.yaml"):
        read_taxonomy(str(tmp_path / "none.yaml"))


def test_a_cell_is_shrunken_to_expert_plus_category():
    # So many rows that the few pseudo-answers of each expert do not matter.
    quality = np.tile([[1.0, 0], [1, 0], [0, 0], [0, 1]], (10_000, 1))
    label = np.tile([0, 0, 1, 1], 10_000)
    table = fit_table(quality, label, 2, shrinkage=20_000)
    # Experts' means are 0.5 and 0.25, category offsets 0.125 and -0.125.
    guess = np.array([[0.625, 0.375], [0.375, 0.125]])
    mean = np.array([[1, 0], [0, 0.5]])
    assert table.quality == pytest.approx((mean + guess) / 2, abs=1e-3)
    assert fit_table(quality, label, 2, shrinkage=0).quality == pytest.approx(mean)


def test_two_right_out_of_two_do_not_beat_a_long_record():
    quality = np.array([[1.0, NAN]] * 80 + [[0.0, NAN]] * 20 + [[NAN, 1.0]] * 2)
    table = fit_table(quality, np.zeros(102, dtype=int), 1)
    assert table.quality[0, 1] < 0.9
    assert table.variance[0, 1] > 5 * table.variance[0, 0]


def test_an_expert_seen_on_easy_queries_only_is_not_taken_for_a_better_one():
    quality = np.array([[0.9, 0.9]] * 50 + [[0.1, NAN]] * 50)
    table = fit_table(quality, np.repeat([0, 1], 50), 2)
    assert table.quality[1, 1] == pytest.approx(0.1, abs=0.02)
    assert table.variance[1, 1] > table.variance[1, 0]


def test_an_expert_that_nobody_graded_is_average_and_uncertain():
    quality = np.array([[1, 0, NAN]] * 30)
    table = fit_table(quality, np.zeros(30, dtype=int), 1)
    assert table.quality[0, 2] == pytest.approx(0.5)
    assert np.sqrt(table.variance[0, 2]) == 0.5
    assert (table.variance[0, :2] < 0.01).all()


def test_a_cost_that_a_category_lacks_is_the_experts_mean():
    cost = np.array([[1.0, NAN, 2.0], [3.0, NAN, NAN]])
    mean = mean_cost(cost, np.array([0, 1]), 2)
    assert np.array_equal(mean, [[1, NAN, 2], [3, NAN, 2]], equal_nan=True)
