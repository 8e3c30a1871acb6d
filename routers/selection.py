"""The selection policies: one expert, several, or nobody.

Shares are p = softmax(scores / temperature) over the experts that may be asked. Sources:
top-p: Huang et al., "Harder Tasks Need More Experts", https://arxiv.org/abs/2403.07652;
null: Zeng et al., "AdaMoE", https://arxiv.org/abs/2406.13233; shared, null and top-p together:
Liu et al., "UniMoE-Audio", https://arxiv.org/abs/2510.13344; threshold: Kong et al., "Enabling
Flexible Multi-LLM Integration", https://arxiv.org/abs/2505.23844.
"""

from dataclasses import dataclass

import numpy as np

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.policies import ABSTAIN, ROUNDING, Ballot, Policy, Selection, softmax

__all__ = [
    "ABSTAIN",
    "Null",
    "Policy",
    "Selection",
    "Shared",
    "Threshold",
    "Top1",
    "TopK",
    "TopP",
]


@dataclass(frozen=True, kw_only=True)
class Top1(Policy):
    """The best expert."""

    def _choose(self, ballot: Ballot) -> Selection:
        return ballot.select(ballot.order[:1])


@dataclass(frozen=True, kw_only=True)
class TopK(Policy):
    """The k best experts."""

    k: int = 2

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1)

    def _choose(self, ballot: Ballot) -> Selection:
        return ballot.select(ballot.affordable(ballot.order[: self.k]))


@dataclass(frozen=True, kw_only=True)
class TopP(Policy):
    """The fewest experts whose shares reach p: 1 + #{j : p_(1) + ... + p_(j) < p} of them.

    Args:
        p: share to be reached, in (0, 1].
        k_min: fewest experts, where there are so many.
        k_max: most experts.
        renormalise: let the weights sum to 1; otherwise they are the shares, as published.
    """

    p: float = 0.4
    k_min: int = 1
    k_max: int | None = None
    renormalise: bool = True

    def __post_init__(self) -> None:
        _share("p", self.p)
        _at_least("k_min", self.k_min, 1)
        if self.k_max is not None:
            _at_least("k_max", self.k_max, self.k_min)

    def _choose(self, ballot: Ballot) -> Selection:
        shares = softmax(ballot.logits[ballot.order])  # falling
        count = max(_reaching(shares, self.p), self.k_min)
        chosen = ballot.affordable(ballot.order[:count][: self.k_max])
        if self.renormalise:
            return ballot.select(chosen)
        return Selection(chosen=tuple(chosen), weights=tuple(shares[: len(chosen)].tolist()))


@dataclass(frozen=True, kw_only=True)
class Threshold(Policy):
    """The experts whose share is above a threshold, or the best one where none is."""

    threshold: float = 0.15

    def __post_init__(self) -> None:
        _share("threshold", self.threshold)

    def _choose(self, ballot: Ballot) -> Selection:
        count = int((softmax(ballot.logits[ballot.order]) > self.threshold).sum())
        return ballot.select(ballot.affordable(ballot.order[: max(1, count)]))


@dataclass(frozen=True, kw_only=True)
class Null(Policy):
    """The k best of the experts and of some nulls, which stand for asking nobody.

    At a tie the expert comes before the null.

    Args:
        k: slots, nulls included.
        nulls: how many nulls there are.
        level: the score of each null: an expert below it is asked only where slots are left.
        otherwise: what it means when only nulls are picked: ``abstain``, or the expert to ask;
            where that one may not be asked, the best that may be is.
    """

    k: int = 2
    nulls: int = 1
    level: float = 0.5
    otherwise: str = ABSTAIN

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1)
        _at_least("nulls", self.nulls, 0)
        _level(self.level)

    def _choose(self, ballot: Ballot) -> Selection:
        if self.otherwise != ABSTAIN:
            ballot.index(self.otherwise)  # a wrong name shows at once, not at the first all-null
        block = ballot.with_nulls(ballot.order, self.nulls, self.level)
        picked = np.argsort(-block, kind="stable")[: self.k]  # stable: nulls come last at a tie
        picked = picked[block[picked] > -np.inf]
        true = int((picked < len(ballot.order)).sum())
        nulls = len(picked) - true
        if true:
            return ballot.select(ballot.affordable(ballot.order[:true]), nulls=nulls)
        if self.otherwise == ABSTAIN:
            return Selection(chosen=(), weights=(), nulls=nulls, fallback=ABSTAIN)
        return ballot.stand_in(self.otherwise, nulls)


@dataclass(frozen=True, kw_only=True)
class Shared(Policy):
    """Experts that are always asked, and with them the top-p of the others and of nulls.

    With r the weights within the dynamic block (others and nulls picked) and g the softmax over
    the block and the shared experts, a dynamic expert weighs r_e * sum_block(g), a shared one
    g_e. Both are of the same logits, so with nulls dropped this is the softmax over the chosen.
    The budget pays shared experts first. Where only nulls are picked, the shared ones answer.

    Args:
        shared: names of the experts that are always asked, as far as they may be.
        p: share to be reached in the dynamic block, in (0, 1].
        nulls: how many nulls the dynamic block has.
        level: the score of each null.
    """

    shared: tuple[str, ...] = ()
    p: float = 0.4
    nulls: int = 0
    level: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", tuple(self.shared))  # YAML brings a list
        if not self.shared:
            raise OptionError("shared: names no expert; name those that are always asked")
        _share("p", self.p)
        _at_least("nulls", self.nulls, 0)
        _level(self.level)

    def _choose(self, ballot: Ballot) -> Selection:
        always = {ballot.index(name) for name in self.shared}
        fixed = [i for i in ballot.order if i in always]
        others = [i for i in ballot.order if i not in always]
        block = ballot.with_nulls(others, self.nulls, self.level)
        picked = np.argsort(-block, kind="stable")[: self._count(block)]
        true = int((picked < len(others)).sum())
        nulls = len(picked) - true
        if not true and not fixed:
            return ballot.stand_in(self.shared[0], nulls)
        kept = set(ballot.affordable([*fixed, *others[:true]]))
        only_nulls = bool(nulls) and not true
        return ballot.select(
            [i for i in ballot.order if i in kept],
            nulls=nulls,
            fallback=ballot.experts[fixed[0]] if only_nulls else None,
        )

    def _count(self, block: FloatArray) -> int:
        if not (block > -np.inf).any():  # there is nobody else, and no null
            return 0
        return _reaching(-np.sort(-softmax(block)), self.p)


def _reaching(shares: FloatArray, p: float) -> int:
    """Return how many of the shares, falling, it takes to reach p."""
    return min(len(shares), 1 + int((np.cumsum(shares) < p - ROUNDING).sum()))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise OptionError(f"{name}: {value!r} is below {least}; use {least} or more")


def _share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise OptionError(f"{name}: {value!r} is not a share; use a number above 0, at most 1")


def _level(value: float) -> None:
    if not value < np.inf:
        raise OptionError(f"level: {value!r} is not a score; use a number")
