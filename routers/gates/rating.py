"""Arms of one expert with what is expected of them, best first."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from experts_registry.types import FloatArray
from routers.arms import Arm, RatedArm

__all__ = ["mean_quality", "rated"]


def rated(
    expert: str,
    stores: Sequence[str],
    column: Sequence[str],
    quality: FloatArray,
    error: FloatArray,
    price: FloatArray,
) -> tuple[RatedArm, ...]:
    """Return the arms of an expert, best first; without passages where it is all the same.

    Args:
        expert: its name.
        stores: that may be read.
        column: (s) stores that the numbers are of.
        quality: (1 + s,) expected of each arm, the first without passages.
        error: (1 + s,) standard error of it.
        price: (s,) of retrieving.
    """
    arms = [RatedArm(Arm(expert), float(quality[0]), float(error[0]), 0.0)]
    for store in stores:
        i = column.index(store)
        numbers = (float(quality[1 + i]), float(error[1 + i]), float(price[i]))
        arms.append(RatedArm(Arm(expert, store), *numbers))
    return tuple(sorted(arms, key=lambda arm: arm.cost - arm.quality))


def mean_quality(
    state: Mapping[str, FloatArray], experts: Iterable[int]
) -> tuple[FloatArray, FloatArray]:
    """Return the mean quality by arm (1 + s,) where all arms have outcomes, and its error."""
    quality = state["held.quality"][:, list(experts)]  # (n, m, 1 + s)
    known = ~np.any(np.isnan(quality), axis=2)
    # Experts that were asked the same query are no further evidence of it.
    return quality[known].mean(axis=0), quality[known].std(axis=0) / np.sqrt(
        known.any(axis=1).sum()
    )
