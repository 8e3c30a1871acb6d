"""Which of several stores a question is answered from, where no gate has learned it.

The best similarities are compared where the same retriever found them: then they are cosines in
one space. Between different retrievers only ranks are comparable: each store counts the sum of
1 / (60 + rank) over its passages (reciprocal rank, Cormack et al., 2009), so that one that found
more comes first, and among equals the first that the composition names.
"""

from collections.abc import Mapping

from composer.stores.retrieved import Retrieved

__all__ = ["best_store"]

_CONSTANT = 60  # of reciprocal rank fusion


def best_store(found: Mapping[str, Retrieved]) -> tuple[str, str]:
    """Return the store to take passages from, and why in words.

    Args:
        found: what each store has for the question; at least one, in the composition's order.
    """
    if len(found) == 1:
        return next(iter(found)), ""
    if is_comparable := _share_a_retriever(found):
        score = {name: max(one.similarity, default=-1.0) for name, one in found.items()}
    else:
        score = {name: _reciprocal(len(one.passages)) for name, one in found.items()}
    best = max(score, key=score.__getitem__)
    by = "similarity" if is_comparable else "reciprocal rank"
    listed = ", ".join(f"{name} {value:.3f}" for name, value in score.items())
    return best, f"{best} by {by} ({listed})"


def _share_a_retriever(found: Mapping[str, Retrieved]) -> bool:
    firsts = {one.decision.experts[:1] for one in found.values() if one.passages}
    return len(firsts) == 1 and all(one.similarity for one in found.values() if one.passages)


def _reciprocal(passages: int) -> float:
    return sum(1 / (_CONSTANT + rank) for rank in range(1, passages + 1))
