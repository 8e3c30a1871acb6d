"""Which of several stores a question is answered from, where no gate has learned it.

The best similarities are compared where the same retriever found them: then they are cosines in
one space. What different retrievers found is compared in the space of the encoder that routers
read: by the cosine of the question and the first passage of each store. Among equals the first
comes first that the composition names.
"""

from collections.abc import Mapping

from composer.stores.indexed_text import indexed_text
from composer.stores.retrieved import Retrieved
from experts_registry.types import Embedder
from routers.features import window

__all__ = ["best_store", "first_store", "nearest_store"]

_NOTHING = -2.0  # below every cosine


def best_store(found: Mapping[str, Retrieved]) -> tuple[str, str] | None:
    """Return the store to take passages from, and why in words; None where that takes an encoder.

    Args:
        found: what each store has for the question; at least one, in the composition's order.
    """
    if len(found) == 1:
        return next(iter(found)), ""
    if not _share_a_retriever(found):
        return None
    return _best({n: max(one.similarity, default=_NOTHING) for n, one in found.items()})


def nearest_store(query: str, found: Mapping[str, Retrieved], encoder: Embedder) -> tuple[str, str]:
    """Return the store whose first passage is nearest to the question; at least one has any."""
    firsts = {name: one.passages[0] for name, one in found.items() if one.passages}
    texts = [indexed_text(passage) for passage in firsts.values()]
    cosine = encoder.embed(texts, role="passage") @ encoder.embed([window(query)], role="query")[0]
    return _best(dict(zip(firsts, cosine.tolist(), strict=True)))


def first_store(found: Mapping[str, Retrieved]) -> tuple[str, str]:
    """Return the first store that has anything, where nothing can be compared."""
    names = [name for name, one in found.items() if one.passages]
    return (names or [*found])[0], "the first, as what they found cannot be compared"


def _best(score: Mapping[str, float]) -> tuple[str, str]:
    best = max(score, key=score.__getitem__)
    listed = ", ".join(f"{name} {value:.3f}" for name, value in score.items() if value > _NOTHING)
    return best, f"{best} by similarity ({listed})"


def _share_a_retriever(found: Mapping[str, Retrieved]) -> bool:
    firsts = {one.decision.experts[:1] for one in found.values() if one.passages}
    return len(firsts) < 2 and all(one.similarity for one in found.values() if one.passages)
