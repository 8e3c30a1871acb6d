"""What retrieving costs, in quality.

ExpertRAG (Gumaan, arXiv:2504.08744) retrieves where it raises the expected quality by more than
lambda (C_ret + C_ctx): the price of searching and of reading the passages, at so much quality a
dollar.
"""

from dataclasses import asdict, dataclass

import numpy as np

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.gates.data import GateData

__all__ = ["RetrievalPrice", "measured_costs"]


@dataclass(frozen=True, kw_only=True)
class RetrievalPrice:
    """What is charged for a retrieval, in quality.

    Args:
        per_retrieval: for each, whatever it costs: two points of a hundred by default.
        quality_per_usd: lambda: quality that a dollar is worth; 0 ignores money and time.
        usd_per_second: what waiting a second is worth.

    Raises:
        OptionError: one of them is negative or not a number.
    """

    per_retrieval: float = 0.02
    quality_per_usd: float = 0.0
    usd_per_second: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise OptionError(f"{name}: {value} is not a price; use 0 or more")

    def of(self, usd: FloatArray, seconds: FloatArray) -> FloatArray:
        """Return the quality that these costs are worth, without the fixed part."""
        cost = np.asarray(usd + self.usd_per_second * seconds, dtype=np.float64)
        # What is free stays free also where money is worth everything.
        return np.multiply(self.quality_per_usd, cost, where=cost > 0, out=np.zeros_like(cost))

    def retrieving(self, usd: FloatArray, seconds: FloatArray) -> FloatArray:
        """Return what retrieving at these costs is charged."""
        return self.per_retrieval + self.of(usd, seconds)


def measured_costs(data: GateData) -> dict[str, FloatArray]:
    """Return what passages cost on average: dollars and seconds more than without them.

    ``usd`` and ``seconds`` (m, s) are means of paired differences, at least 0, and 0 where
    nothing was recorded; ``draft.usd`` and ``draft.seconds`` (m,) are those of an answer without
    passages, which a draft costs at most.
    """
    found = {}
    for name, values in (("usd", data.usd), ("seconds", data.seconds)):
        found[name] = np.maximum(_mean(values[:, :, 1:] - values[:, :, :1]), 0)
        found[f"draft.{name}"] = _mean(values[:, :, 0])
    return found


def _mean(values: FloatArray) -> FloatArray:
    """Return the means over the first axis of what is known; 0 where nothing is."""
    known = ~np.isnan(values)
    total: FloatArray = np.where(known, values, 0).sum(axis=0)
    mean: FloatArray = total / np.maximum(known.sum(axis=0), 1)
    return mean
