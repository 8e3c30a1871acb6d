"""What is known of each expert before a query is read: means, their errors, costs."""

import numpy as np

from experts_registry.types import FloatArray
from routers.data import RoutingDataset

__all__ = ["PRIOR_ERROR", "expert_level", "expert_prior"]

PRIOR_ERROR = 0.5  # a new expert may be anything in [0, 1]
_PRIOR_ANSWERS = 4.0  # as in routers.table


def expert_prior(data: RoutingDataset) -> dict[str, FloatArray]:
    """Return the state arrays ``prior.mean``, ``.error``, ``.cost`` (m,) and ``.scale`` (1,)."""
    seen = ~np.isnan(data.quality)
    count = seen.sum(axis=0)  # (m,), at least 1
    mean = np.where(seen, data.quality, 0).sum(axis=0) / count
    spread = np.where(seen, (data.quality - mean) ** 2, 0).sum(axis=0) / count
    priced = ~np.isnan(data.cost)
    cost = np.where(priced, data.cost, 0).sum(axis=0) / np.maximum(priced.sum(axis=0), 1)
    cost = np.where(priced.any(axis=0), cost, np.nan)
    return {
        "prior.mean": mean,
        # The floor keeps an expert that was right twice out of twice from looking certain.
        "prior.error": np.sqrt((spread + 0.25 / count) / count),
        "prior.cost": cost,
        "prior.scale": np.array([max(np.nanmax(cost), 1e-12) if priced.any() else 1.0]),
    }


def expert_level(quality: FloatArray) -> FloatArray:
    """Return each expert's mean quality (m,), pulled to the overall one where it has few."""
    known = ~np.isnan(quality)
    total, count = np.where(known, quality, 0).sum(axis=0), known.sum(axis=0)
    overall = total.sum() / count.sum()
    level: FloatArray = (total + _PRIOR_ANSWERS * overall) / (count + _PRIOR_ANSWERS)
    return level
