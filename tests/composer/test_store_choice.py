import pytest

from composer.store_choice import best_store
from composer.stores.retrieved import Retrieved
from experts_registry.passages import Passage
from routers.decision import Decision


def found(store, retriever, *similarity):
    passages = tuple(Passage(id=str(i), text="x", score=s) for i, s in enumerate(similarity))
    decision = Decision((retriever,), (), "")
    return Retrieved(passages=passages, store=store, decision=decision, similarity=similarity)


@pytest.mark.parametrize(
    ("stores", "best"),
    [
        ({"a": ("words", 0.1, 0.1), "b": ("words", 0.9)}, "b"),  # comparable: the nearest passage
        ({"a": ("words", 0.1, 0.1), "b": ("other", 0.9)}, "a"),  # not comparable: found more
        ({"a": ("words", 0.1), "b": ("other", 0.9)}, "a"),  # and among equals the first
        ({"a": ("words",), "b": ("words", -0.2)}, "b"),  # something before nothing
    ],
)
def test_similarities_are_compared_only_within_one_space(stores, best):
    searched = {name: found(name, *values) for name, values in stores.items()}
    store, why = best_store(searched)
    assert store == best
    assert why


def test_of_one_store_there_is_nothing_to_say():
    assert best_store({"a": found("a", "words", 0.5)}) == ("a", "")
