"""How good ranked lists are, by the definitions of TREC: nDCG@10, Recall@10 and @100, MRR@10.

The gain of nDCG is the grade, its discount log2(rank + 1), and the ideal is over all judged
passages. Computed by ir-measures; needs the extra ``ir``.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from composer.judged import JudgedQuery
from experts_registry.errors import PluginError
from experts_registry.types import FloatArray

__all__ = ["MEASURES", "NDCG", "Ranked", "measured"]

NDCG = "nDCG@10"
MEASURES = {NDCG: "nDCG@10", "Recall@10": "R@10", "Recall@100": "R@100", "MRR@10": "RR@10"}
Ranked = Mapping[str, float]  # document -> score


def measured(
    judged: Sequence[JudgedQuery], ranked: Sequence[Ranked], names: Sequence[str] = tuple(MEASURES)
) -> dict[str, FloatArray]:
    """Return measure -> (n,) of one ranked list for each query; 0 where nothing was found.

    Raises:
        PluginError: ir-measures is not installed.
    """
    try:
        import ir_measures
    except ImportError:
        raise PluginError(
            "retrieval measures need ir-measures; install it with pip install 'expert-composer[ir]'"
        ) from None
    # Numbers stand for the ids, which may come twice where several collections are measured.
    qrels = {str(i): dict(query.relevant) for i, query in enumerate(judged)}
    run = {str(i): dict(found) for i, found in enumerate(ranked)}
    wanted = {ir_measures.parse_measure(MEASURES[name]): name for name in names}
    values: dict[str, FloatArray] = {name: np.zeros(len(judged)) for name in names}
    for each in ir_measures.iter_calc(list(wanted), qrels, run):
        values[wanted[each.measure]][int(each.query_id)] = each.value
    return values
