"""Ask another expert now and then, to learn how good it is by now; never beyond a daily cap.

A router that always asks the expert it thinks best never learns that another one has become
better. With probability ``rate`` the expert is instead chosen by

- Thompson sampling (W. R. Thompson, "On the likelihood that one unknown probability exceeds
  another in view of the evidence of two samples", Biometrika 1933): an expert is chosen as often
  as it is the best one under q_e ~ N(u_e, s_e), utility and standard error as the router states
  them; or
- UCB (P. Auer, "Using confidence bounds for exploitation-exploration trade-offs", JMLR 2002,
  https://jmlr.org/papers/v3/auer02a.html): argmax of u_e + 1.96 s_e.

Thompson's probabilities are computed, not sampled, and the expert is drawn from them. So the
propensity that stands in the decision is exact, as unbiased learning from the log needs it.
"""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, Protocol, get_args

import numpy as np

from experts_registry.errors import OptionError, nearest
from experts_registry.types import FloatArray
from routers.decision import Candidate, Decision

__all__ = ["DayPurse", "Explorer", "Method", "Purse", "best_chances"]

Method = Literal["thompson", "ucb"]
_CONFIDENCE = 1.96
_CERTAIN = 1e-9  # the least standard error: below it an expert is a point
_STEP = 1e-7  # what an earlier rank is worth, so that ties end as the router ended them
_NEVER = 1e-9  # a smaller probability is an error of the quadrature
_GRID = np.linspace(-4.5, 4.5, 25)  # where each expert's distribution is looked at, in errors


class Purse(Protocol):
    """What exploring has cost today (UTC), and the one place where more of it is allowed."""

    def spent(self) -> float:
        """Return the USD that were reserved today."""
        ...

    def reserve(self, usd: float, limit: float) -> bool:
        """Add to today's sum unless that would exceed the limit; tell whether it was added."""
        ...


class DayPurse:
    """A purse in memory, for one process; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._day, self._spent = "", 0.0

    def spent(self) -> float:
        """Return the USD that were reserved today."""
        with self._lock:
            return self._today()

    def reserve(self, usd: float, limit: float) -> bool:
        """Add to today's sum unless that would exceed the limit; tell whether it was added."""
        with self._lock:
            if self._today() + usd > limit:
                return False
            self._spent += usd
            return True

    def _today(self) -> float:
        if (day := datetime.now(UTC).date().isoformat()) != self._day:
            self._day, self._spent = day, 0.0
        return self._spent


@dataclass(kw_only=True)
class Explorer:
    """Replace a share of a router's decisions by exploring ones.

    Args:
        method: ``thompson`` or ``ucb``.
        rate: share of the decisions that explore; an exploring one may confirm the router's.
        usd_per_day: most that exploring may be expected to add to the bill in a day (UTC).
        seed: makes the draws repeatable; by default they are not.

    Raises:
        OptionError: one of them is out of its range.
    """

    method: Method = "thompson"
    rate: float = 0.05
    usd_per_day: float = 1.0
    seed: int | None = None
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = get_args(Method)
        if self.method not in known:
            hint = nearest(str(self.method), known)
            raise OptionError(f"method: {self.method!r} is not one of {', '.join(known)}{hint}")
        if not 0 <= self.rate <= 1:
            raise OptionError(f"rate: {self.rate!r} is not a share in [0, 1]")
        if not 0 <= self.usd_per_day < np.inf:
            raise OptionError(f"usd_per_day: {self.usd_per_day!r} is not a number of at least 0")
        self._random = random.Random(self.seed)  # one call of it is safe from any thread

    def choose(
        self, decision: Decision, purse: Purse, *, usd: Mapping[str, float] | None = None
    ) -> Decision:
        """Return the decision, or one that asks another expert first.

        Either carries ``details["exploration"]``: ``propensity`` is the probability with which
        its primary is chosen for this query, ``explored`` whether this was an exploring draw.
        A decision that leaves no choice comes back as it is.

        Args:
            decision: a router's.
            purse: keeps the day's sum; what a choice is expected to add is reserved here first.
            usd: expected price of a call by expert, used where the decision does not say it in
                USD. An expert whose price is not known is not explored.
        """
        pool = [c for c in decision.candidates if c.excluded is None]
        names = [c.expert for c in pool]
        if len(pool) < 2 or not decision.experts or decision.primary not in names:
            return decision
        greedy = names.index(decision.primary)
        odds = _Odds(self._chances(pool, greedy), _extra_usd(decision, pool, usd or {}), greedy)
        is_drawn, pick = self._random.random() < self.rate, odds.draw(self._random.random())
        if not is_drawn or not self._is_paid(purse, float(odds.extra[pick])):
            pick = greedy
        told = {
            "method": self.method,
            "rate": self.rate,
            "explored": is_drawn,
            "greedy": names[greedy],
            "propensity": self._propensity(odds, pick, purse),
            "extra_usd": float(odds.extra[pick]),
        }
        decision = replace(decision, details={**decision.details, "exploration": told})
        if pick == greedy:
            return decision
        return _with_primary(decision, pool[pick], pool[greedy], self.method)

    def _chances(self, pool: Sequence[Candidate], greedy: int) -> FloatArray:
        """Return the probability (m,) with which an exploring draw names each expert."""
        value = np.array([c.utility for c in pool])
        if not value.any():  # nothing was ranked by utility
            value = np.array([c.quality for c in pool])
        error = np.array([c.error for c in pool])
        rank = np.arange(len(pool), dtype=np.float64)
        rank[greedy] = -1
        value = value - _STEP * rank
        if self.method == "thompson":
            return best_chances(value, error)
        chance = np.zeros(len(pool))
        chance[np.argmax(value + _CONFIDENCE * error)] = 1.0
        return chance

    def _is_paid(self, purse: Purse, usd: float) -> bool:
        return usd == 0 or (usd < np.inf and purse.reserve(usd, self.usd_per_day))

    def _propensity(self, odds: "_Odds", pick: int, purse: Purse) -> float:
        """Return the probability of the choice: what cannot be paid for falls to the greedy one."""
        if pick != odds.greedy:
            return self.rate * float(odds.chance[pick])
        left = self.usd_per_day - purse.spent() if odds.is_dear else 0.0
        is_payable = odds.extra <= max(left, 0.0)
        is_payable[odds.greedy] = False
        return 1.0 - self.rate * float(odds.chance[is_payable].sum())


@dataclass(frozen=True, eq=False)
class _Odds:
    """What an exploring draw over m experts may bring.

    Args:
        chance: (m,) probability that it names the expert.
        extra: (m,) USD that asking the expert adds; infinite where that is not known.
        greedy: the router's own choice.
    """

    chance: FloatArray
    extra: FloatArray
    greedy: int

    def draw(self, dice: float) -> int:
        """Return an expert; dice is uniform in [0, 1)."""
        return int(np.searchsorted(np.cumsum(self.chance[:-1]), dice, side="right"))

    @property
    def is_dear(self) -> bool:
        """Whether some draw would cost."""
        is_known = (self.extra > 0) & (self.extra < np.inf)
        return bool((is_known & (self.chance > 0)).any())


def best_chances(mean: FloatArray, error: FloatArray) -> FloatArray:
    r"""Return the probability (m,) that each of m independent normal variables is the largest.

    P_e = \int f_e(t) \prod_{j \ne e} F_j(t) dt, on a grid made of every variable's quantiles.
    """
    from scipy.special import ndtr

    error = np.maximum(error, _CERTAIN)
    grid = np.unique(mean[:, None] + error[:, None] * _GRID)  # (g,)
    below = ndtr((grid - mean[:, None]) / error[:, None])  # (m, g)
    below = np.pad(below, ((0, 0), (1, 1)), constant_values=(0, 1))
    middle = np.log(np.maximum((below[:, 1:] + below[:, :-1]) / 2, 1e-300))
    others = np.exp(middle.sum(axis=0) - middle)  # (m, g + 1) that all the others are below
    chance = (np.diff(below) * others).sum(axis=1)
    chance[chance < _NEVER] = 0.0
    result: FloatArray = chance / chance.sum()
    return result


def _extra_usd(
    decision: Decision, pool: Sequence[Candidate], usd: Mapping[str, float]
) -> FloatArray:
    """Return what asking each expert adds to the bill (m,), infinite where it is not known."""
    is_usd = decision.cost_unit == "usd"
    price = {c.expert: c.cost if is_usd and c.cost is not None else usd.get(c.expert) for c in pool}
    saved = price.get(decision.experts[-1])  # whom a new primary replaces
    extra = []
    for candidate in pool:
        cost = price[candidate.expert]
        if candidate.expert in decision.experts:
            extra.append(0.0)
        else:
            extra.append(np.inf if cost is None or saved is None else max(cost - saved, 0.0))
    return np.array(extra)


def _with_primary(
    decision: Decision, chosen: Candidate, greedy: Candidate, method: Method
) -> Decision:
    """Put an expert first; as many experts are asked as before."""
    old = dict(zip(decision.experts, decision.scores, strict=False))
    rest = [name for name in decision.experts if name != chosen.expert]
    names = (chosen.expert, *rest)[: len(decision.experts)]
    why = "Thompson sampling" if method == "thompson" else "upper confidence bound"
    return replace(
        decision,
        experts=names,
        scores=tuple(old.get(name, chosen.quality) for name in names),
        reason=f"exploring by {why}: {chosen.expert} ({chosen.quality:.2f} ± {chosen.error:.2f}) "
        f"instead of {greedy.expert} ({greedy.quality:.2f} ± {greedy.error:.2f}); "
        f"{decision.reason}",
    )
