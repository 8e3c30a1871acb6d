"""Whether a gate has skill: it is used only where it beats never and always retrieving.

On queries that the heads had not seen, the utility of the gate's choices, quality less price, is
compared, paired by query, with that of the better constant policy, and with retrieving as often
at random. Unless it is better than both with a probability of `ENOUGH`, and departs from the
constant on `FEWEST` queries or more, the constant is deployed.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["ENOUGH", "FEWEST", "Verdict", "chance_above", "judge"]

IntArray = NDArray[np.integer[Any]]
ENOUGH = 0.9
FEWEST = 20  # queries below which nothing is evidence
_RESAMPLES = 10_000
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is deployed for one expert, and on what evidence.

    Args:
        arm: the constant that is deployed, 0 for never and 1 + i for the i-th store; None where
            the gate is.
        best: the better constant arm.
        probability: that the gate's utility is above that of the better constant, and of chance.
        utility: mean utility of ``gate``, ``never``, ``always`` and ``random`` at its rate.
        rate: share of the queries for which the gate retrieves.
        queries: it was judged on.
        departs: on how many of them the gate takes another arm than the better constant.
    """

    arm: int | None
    best: int
    probability: float
    utility: dict[str, float]
    rate: float
    queries: int
    departs: int = 0

    @property
    def has_skill(self) -> bool:
        """Whether the gate decides."""
        return self.arm is None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"has_skill": self.has_skill}


def judge(utility: FloatArray, chosen: IntArray, paid: FloatArray | None = None) -> Verdict:
    """Judge choices among arms.

    Args:
        utility: (n, 1 + s) of each arm; rows with a NaN are left out.
        chosen: (n,) arm that the gate takes.
        paid: (n,) what the gate pays beside it, for drafts.
    """
    known = ~np.isnan(utility).any(axis=1)
    utility, chosen = utility[known], chosen[known]
    drafts = np.zeros(len(chosen)) if paid is None else paid[known]
    if not len(chosen):
        return Verdict(arm=0, best=0, probability=0.0, utility={}, rate=0.0, queries=0)
    mean = utility.mean(axis=0)
    best, store = int(np.argmax(mean)), 1 + int(np.argmax(mean[1:]))
    gate = utility[np.arange(len(chosen)), chosen] - drafts
    rate = float((chosen > 0).mean())
    # A price may be infinite: what is never taken costs nothing.
    random = (1 - rate) * utility[:, 0] + (rate * utility[:, store] if rate else 0)
    probability = min(chance_above(gate - utility[:, best]), chance_above(gate - random))
    departs = int((chosen != best).sum())
    has_skill = probability >= ENOUGH and departs >= FEWEST
    return Verdict(
        arm=None if has_skill else best,
        best=best,
        probability=probability,
        utility={
            "gate": float(gate.mean()),
            "never": float(mean[0]),
            "always": float(mean[store]),
            "random": float(random.mean()),
        },
        rate=rate,
        queries=len(chosen),
        departs=departs,
    )


def chance_above(difference: FloatArray, seed: int = 0) -> float:
    """Return the share of bootstrap means of paired differences (n,) that are above 0."""
    if not np.isfinite(difference).all():  # retrieving at an infinite price
        return float(np.nan_to_num(difference, posinf=1.0, neginf=-1.0).mean() > 0)
    rng, n, above = np.random.default_rng(seed), len(difference), 0
    for _ in range(_RESAMPLES // _AT_ONCE):
        above += int((difference[rng.integers(n, size=(_AT_ONCE, n))].mean(axis=1) > 1e-12).sum())
    return above / _RESAMPLES
