import pytest

from composer.store_choice import best_store, first_store, nearest_store
from composer.stores.retrieved import Retrieved
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.passages import Passage
from experts_registry.schema import ExpertSpec
from routers.decision import Decision

WORDS = HashingEmbedder(
    ExpertSpec(name="words", kind="retriever", backend="hashing", model="hashing")
)


def found(store, retriever, *similarity, text="x"):
    passages = tuple(Passage(id=str(i), text=text, score=s) for i, s in enumerate(similarity))
    decision = Decision((retriever,), (), "")
    return Retrieved(passages=passages, store=store, decision=decision, similarity=similarity)


@pytest.mark.parametrize(
    ("stores", "best"),
    [
        ({"a": ("words", 0.1, 0.1), "b": ("words", 0.9)}, "b"),  # the nearest passage
        ({"a": ("words", 0.1, 0.1), "b": ("words", 0.1)}, "a"),  # among equals the first
        ({"a": ("words",), "b": ("words", -0.2)}, "b"),  # something before nothing
        ({"a": ("other",), "b": ("words", -0.2)}, "b"),
    ],
)
def test_similarities_of_one_retriever_are_compared(stores, best):
    searched = {name: found(name, *values) for name, values in stores.items()}
    store, why = best_store(searched)
    assert store == best
    assert why


def test_what_different_retrievers_found_is_compared_by_one_encoder():
    searched = {
        "a": found("a", "words", 0.9, text="The filter of the pump."),
        "b": found("b", "other", 0.1, text="The canteen opens at noon."),
        "c": found("c", "third"),
    }
    assert best_store(searched) is None
    assert nearest_store("When does the canteen open?", searched, WORDS)[0] == "b"
    assert nearest_store("What is a filter of a pump?", searched, WORDS)[0] == "a"
    assert first_store(searched)[0] == "a"


def test_of_one_store_there_is_nothing_to_say():
    assert best_store({"a": found("a", "words", 0.5)}) == ("a", "")
