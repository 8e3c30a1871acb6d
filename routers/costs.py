"""What a query will cost with each expert, before it is asked.

Long prompts cost more, and some questions call for long answers: ridge regression of the log cost
on the embedding and the text's features, kept within what the expert was seen to cost. An expert
whose cost never changes, or was seen too seldom, keeps its mean.
"""

from collections.abc import Mapping

import numpy as np

from experts_registry.types import FloatArray
from routers.ridge import fit_ridge

__all__ = ["fit_cost", "predict_cost"]

_PENALTY = 3.0
_FEWEST = 50  # outcomes below which the mean says as much


def fit_cost(z: FloatArray, cost: FloatArray, mean: FloatArray) -> dict[str, FloatArray]:
    """Return the state arrays ``cost.weight`` (d, m), ``.bias``, ``.low`` and ``.high`` (m,).

    Args:
        z: (n, d) what is known of the queries.
        cost: (n, m); NaN where unknown.
        mean: (m,) mean costs; NaN where an expert's is unknown.
    """
    seen, known = cost > 0, ~np.isnan(cost)
    low = np.min(cost, axis=0, initial=np.inf, where=known)
    high = np.max(cost, axis=0, initial=0, where=known)
    varies = (seen.sum(axis=0) >= _FEWEST) & (high > low * (1 + 1e-9))
    weight = np.zeros((z.shape[1], cost.shape[1]))
    bias = np.zeros(cost.shape[1])
    if varies.any():
        cost, seen, known = cost[:, varies], seen[:, varies], known[:, varies]
        found = fit_ridge(z, np.where(seen, np.log(np.where(seen, cost, 1)), np.nan), _PENALTY)
        # The exponential of a mean log lies below the mean, and what was free has no logarithm:
        # match the mean that was seen.
        fitted = np.where(known, np.exp(found(z)), 0).sum(axis=0)
        weight[:, varies] = found.weight
        bias[varies] = found.intercept + np.log(np.where(known, cost, 0).sum(axis=0) / fitted)
    bounds = {"cost.low": np.where(varies, low, mean), "cost.high": np.where(varies, high, mean)}
    return {"cost.weight": weight, "cost.bias": bias, **bounds}


def predict_cost(z: FloatArray, state: Mapping[str, FloatArray]) -> FloatArray:
    """Return the expected cost (n, m); NaN where an expert's cost is unknown."""
    exponent = np.minimum(np.maximum(z @ state["cost.weight"] + state["cost.bias"], -80), 80)
    cost: FloatArray = np.minimum(
        np.maximum(np.exp(exponent), state["cost.low"]), state["cost.high"]
    )
    return cost
