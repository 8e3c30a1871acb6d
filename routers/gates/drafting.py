"""Stage B: where the question leaves it open, a short draft tells how sure the expert is.

A head on the signals of `routers.draft` and on what stage A thought gives the chance that the
answer without passages is right. Drafts are made only inside a band around indifference,
|gain - price| < band, whose width is chosen on held-out queries, and only if they pay there. An
answer never goes on from its draft, so every draft is paid for, whatever is decided.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.gates.guard import ENOUGH, FEWEST, chance_above
from routers.gates.heads import Fitted, fit_head, logit

__all__ = ["Drafted", "best_band", "choose", "draft_inputs", "fit_draft", "within"]

IntArray = NDArray[np.integer[Any]]
_BANDS = (0.05, 0.1, 0.2, 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class Drafted:
    """Choices with drafts.

    Args:
        arm: (n,) chosen.
        asked: (n,) whether a draft was made.
        paid: (n,) price of the drafts.
    """

    arm: IntArray
    asked: NDArray[np.bool_]
    paid: FloatArray


def draft_inputs(signals: FloatArray, chances: FloatArray) -> FloatArray:
    """Return what the head reads: signals (n, g) and the log odds of stage A (n, 1 + s)."""
    return np.hstack([signals, logit(chances)])


def fit_draft(
    signals: FloatArray, chances: FloatArray, y: FloatArray, fold: IntArray, weight: FloatArray
) -> Fitted | None:
    """Fit P(right without passages | draft); None where too few drafts are known.

    Args:
        signals: (n, g) standardised; NaN where there was no draft.
        chances: (n, 1 + s) of stage A, held out.
        y: (n,) quality without passages.
        fold: (n,) of the cross-validation.
        weight: (n,) of the queries.
    """
    known = ~np.isnan(signals).any(axis=1)
    told = np.where(known, y, np.nan)
    if (~np.isnan(told)).sum() < FEWEST:
        return None
    inputs = draft_inputs(np.nan_to_num(signals), chances)
    fitted = fit_head(inputs, told, fold, weight, np.ones((1, inputs.shape[1])))
    return Fitted(fitted.head, np.where(known, fitted.held, np.nan))


def within(chances: FloatArray, near: FloatArray | NDArray[np.bool_] | None) -> FloatArray:
    """Return chances (n, 1 + s), -inf for stores (n, s) that have nothing near enough to read."""
    if near is None:
        return chances
    return np.hstack([chances[:, :1], np.where(near, chances[:, 1:], -np.inf)])


def choose(
    chances: FloatArray,
    drafted: FloatArray | None,
    price: FloatArray,
    band: float,
    draft_price: float,
) -> Drafted:
    """Choose arms, asking for a draft inside the band.

    Args:
        chances: (n, 1 + s) of stage A.
        drafted: (n,) chance of arm 0 after a draft; NaN where none can be had.
        price: (s,) of retrieving.
        band: half its width; 0 never drafts.
        draft_price: of one draft.
    """
    rated = chances - np.append(0.0, price)
    gain = rated[:, 1:].max(axis=1) - rated[:, 0]
    asked = np.zeros(len(rated), dtype=bool)
    if drafted is not None:
        asked = (np.abs(gain) < band) & ~np.isnan(drafted)
        # What is spent on the draft already is no reason to keep it.
        rated[asked, 0] = drafted[asked]
    arm = rated.argmax(axis=1)
    return Drafted(arm, asked, np.where(asked, draft_price, 0.0))


def best_band(
    chances: FloatArray,
    drafted: FloatArray | None,
    utility: FloatArray,
    price: FloatArray,
    draft_price: float,
) -> float:
    """Return the band of the highest utility on held-out queries, or 0 where drafts do not pay."""
    known = ~np.isnan(utility).any(axis=1)
    if drafted is None or not known.any():
        return 0.0

    def reached(band: float) -> FloatArray:
        found = choose(chances, drafted, price, band, draft_price)
        return (utility[np.arange(len(utility)), found.arm] - found.paid)[known]

    without = reached(0.0)
    means = [float(reached(band).mean()) for band in _BANDS]
    best = _BANDS[int(np.argmax(means))]
    return best if chance_above(reached(best) - without) >= ENOUGH else 0.0
