"""Make one list of several that were ranked by scores of different kinds.

Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009, https://doi.org/10.1145/1571941.1572114:

    score(p) = sum over lists of 1 / (60 + rank of p), ranks from 1
"""

from collections.abc import Sequence

__all__ = ["fused"]

_DAMPING = 60


def fused(lists: Sequence[Sequence[int]]) -> dict[int, float]:
    """Return row -> score of all rows in the lists, best first; ties as the first list has them."""
    scores: dict[int, float] = {}
    for rows in lists:
        for rank, row in enumerate(rows, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (_DAMPING + rank)
    # Rows were met in the order of the lists, and sorting keeps it among equals.
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
