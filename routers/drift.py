r"""Notice that an expert is not as good in a category as it was when the router was trained.

From "Bohdi: Heterogeneous LLM Fusion with Automatic Data Exploration", arXiv 2506.15721: per
(category, expert) cell, a window of the last W grades is held against the reference rate
p0 = successes / count by a likelihood ratio, 2 (LL(own rate) - LL(p0)) ~ chi-square(1). That takes
p0 as known, but it was counted on some outcomes too, and on few of them every window would look
different. So both sides count:

    G = 2 (LL(window at its rate) + LL(reference at its rate) - LL(both at their common rate)),

which is the published ratio where the reference is long, and 0 where there is no reference.
The published W = 20 and threshold 0.2 raise a false alarm in 99.9 % of the cells within 200
grades; the defaults here in about 2 %.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experts_registry.errors import OptionError
from routers.data import RoutingDataset

__all__ = ["Alarm", "Cell", "DriftMonitor", "Rate", "drift_p_value", "reference_rates"]

Cell = tuple[str, str]  # category, expert; an empty category stands for all of them


@dataclass(frozen=True)
class Rate:
    """Grades in [0, 1]: their sum and their number."""

    successes: float
    count: float

    @property
    def mean(self) -> float:
        """Their mean, NaN where there are none."""
        return self.successes / self.count if self.count else math.nan


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A cell whose grades have changed.

    Args:
        category: of the queries; empty where it was not known.
        expert: who answered them.
        before: mean quality in the reference.
        now: mean quality in the window.
        p_value: of the likelihood ratio.
        observation: which grade of this cell raised it, from 1.
    """

    category: str
    expert: str
    before: float
    now: float
    p_value: float
    observation: int

    @property
    def is_worse(self) -> bool:
        """Whether the expert got worse, not better."""
        return self.now < self.before


class DriftMonitor:
    """Watch the grades of every cell; an alarm makes the window the cell's new reference.

    Args:
        reference: what each cell's rate was; see `reference_rates`. Cells that are not there are
            not judged.
        window: grades that are compared with it; no alarm before there are as many.
        threshold: an alarm is raised below this p-value.

    Raises:
        OptionError: one of them is out of its range.
    """

    def __init__(
        self, reference: Mapping[Cell, Rate], *, window: int = 50, threshold: float = 0.001
    ) -> None:
        if window < 2:
            raise OptionError(f"window: {window} is below 2; use more, for example 50")
        if not 0 < threshold < 1:
            raise OptionError(f"threshold: {threshold} is not in (0, 1); for example 0.001")
        self.window, self.threshold = window, threshold
        self.reference: dict[Cell, Rate] = dict(reference)
        self.observations: dict[Cell, int] = {}
        self._recent: dict[Cell, deque[float]] = {}

    def observe(self, category: str, expert: str, quality: float) -> Alarm | None:
        """Take one grade in [0, 1]; return an alarm where the cell has changed."""
        cell = (category, expert)
        recent = self._recent.setdefault(cell, deque(maxlen=self.window))
        recent.append(quality)
        self.observations[cell] = self.observations.get(cell, 0) + 1
        before = self.reference.get(cell, Rate(0.0, 0.0))
        if len(recent) < self.window or not before.count:
            return None
        now = Rate(math.fsum(recent), len(recent))
        if (p_value := drift_p_value(before, now)) >= self.threshold:
            return None
        self.reference[cell] = now
        recent.clear()  # the same grades must not be held against themselves
        return Alarm(
            category=category,
            expert=expert,
            before=before.mean,
            now=now.mean,
            p_value=p_value,
            observation=self.observations[cell],
        )


def reference_rates(data: RoutingDataset) -> dict[Cell, Rate]:
    """Return the rate of every cell with an outcome, and of every expert under category ''."""
    rates = {}
    labels = np.array(data.category)
    for category in ("", *data.categories):
        quality = data.quality[labels == category] if category else data.quality
        for name, column in zip(data.experts, quality.T, strict=True):
            if count := int((~np.isnan(column)).sum()):
                rates[category, name] = Rate(float(np.nansum(column)), count)
    return rates


def drift_p_value(before: Rate, now: Rate) -> float:
    """Return the p-value of both rates being one; 1 where either has no grade.

    Grades between 0 and 1 vary less than binary ones of the same mean: for these it is an upper
    bound.
    """
    both = Rate(before.successes + now.successes, before.count + now.count)
    ratio = 2 * (_likelihood(before) + _likelihood(now) - _likelihood(both))
    return math.erfc(math.sqrt(max(ratio, 0.0) / 2))  # the tail of chi-square(1)


def _likelihood(rate: Rate) -> float:
    """Return the log-likelihood of grades at their own rate."""
    failures = rate.count - rate.successes
    return sum(n * math.log(n / rate.count) for n in (rate.successes, failures) if n > 0)
