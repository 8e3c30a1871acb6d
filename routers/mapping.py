"""Which expert serves which category: an exact integer program, and its quality-cost front.

Jain et al., "Composition of Experts: A Modular Compound AI System Leveraging Large Language
Models", https://arxiv.org/abs/2412.01868. With P the value of expert e on category c, a its cost,
pi the category's share of the traffic, y the assignment and h the hosted experts:

    max  sum_c pi_c sum_e (P_ce - lambda a_ce) y_ce
    s.t. sum_e y_ce = 1,  y_ce <= h_e,  sum_ce pi_c a_ce y_ce <= budget,
         sum_e size_e h_e <= hosting,  sum_e h_e <= max_experts,  h_e = 1 where pinned
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import BudgetError, OptionError
from experts_registry.types import FloatArray

__all__ = ["Mapping", "pareto", "solve"]

IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
_SLACK = 1e-9  # relative; budgets are met up to rounding


@dataclass(frozen=True, eq=False)
class Mapping:
    """One expert per category.

    Args:
        choice: (c) the expert's column.
        value: traffic-weighted value, before cost is weighed.
        cost: traffic-weighted cost.
        bound: no mapping has a higher objective than this.
        gap: ``bound`` less the objective of this one; 0 when it is proved optimal.
    """

    choice: IntArray
    value: float
    cost: float
    bound: float
    gap: float


@dataclass(frozen=True, eq=False)
class _Program:
    """The checked input of one integer program."""

    value: FloatArray  # (c, m)
    cost: FloatArray  # (c, m)
    share: FloatArray  # (c,)
    allowed: BoolArray  # (c, m)
    sizes: FloatArray  # (m,)
    hosting: float
    max_experts: float
    pinned: tuple[int, ...]

    @property
    def is_separable(self) -> bool:
        """Whether each category may be decided alone."""
        return self.hosting == self.max_experts == np.inf


def solve(
    value: FloatArray,
    cost: FloatArray,
    share: FloatArray,
    *,
    budget: float | None = None,
    cost_weight: float = 0.0,
    sizes: FloatArray | None = None,
    hosting: float | None = None,
    max_experts: int | None = None,
    pinned: Sequence[int] = (),
    allowed: BoolArray | None = None,
) -> Mapping:
    """Choose the expert of every category.

    Args:
        value: (c, m) what an expert is worth on a category.
        cost: (c, m) what it costs there.
        share: (c) the categories' shares of the traffic.
        budget: most that a query may cost on average.
        cost_weight: value given up per unit of cost.
        sizes: (m) what hosting an expert takes, for ``hosting``.
        hosting: most that the chosen experts' sizes may add up to.
        max_experts: most experts that may be hosted.
        pinned: experts that are hosted in any case.
        allowed: (c, m) which experts may serve which category; by default all.

    Raises:
        BudgetError: no mapping fits; says the smallest budget that one fits.
        OptionError: shapes disagree, or a number is missing or negative.
    """
    program = _program(value, cost, share, sizes, hosting, max_experts, pinned, allowed)
    limit = np.inf if budget is None else budget
    objective = program.value - cost_weight * program.cost
    if program.is_separable:
        best = _separable(program, objective)
        if best.cost <= limit * (1 + _SLACK):
            return best
    return _milp(program, objective, limit)


def pareto(
    value: FloatArray,
    cost: FloatArray,
    share: FloatArray,
    *,
    sizes: FloatArray | None = None,
    hosting: float | None = None,
    max_experts: int | None = None,
    pinned: Sequence[int] = (),
    allowed: BoolArray | None = None,
    resolution: float = 0.0,
) -> list[Mapping]:
    """Return the mappings that no other one beats in both value and cost, cheapest first.

    From the most valuable one downwards, each next budget lies just below the last one's cost, so
    every point is found, up to the solver's tolerance of 1e-6, also those that no cost weight
    reaches (below the convex hull).

    The arguments are those of `solve`; ``resolution`` is the share of the cost range by which
    points are at least apart. At 0 all are found, and they may be very many.
    """
    program = _program(value, cost, share, sizes, hosting, max_experts, pinned, allowed)
    front = [_cheapest_best(program, np.inf)]
    dearest = front[0].cost
    least = _milp(program, -program.cost, np.inf).cost
    # Less than the solver's tolerance below the last point lies the last point again.
    tolerance = 4e-6 * float(program.cost.max())
    step = max(resolution * (dearest - least), tolerance)
    while front[-1].cost > least + tolerance:
        found = _cheapest_best(program, max(front[-1].cost - step, least))
        if found.cost >= front[-1].cost:
            break
        front.append(found)
    return front[::-1]


def _cheapest_best(program: _Program, budget: float) -> Mapping:
    """Return the most valuable mapping within a budget, and of several the cheapest."""
    best = _milp(program, program.value, budget)
    cheapest = _milp(program, -program.cost, budget, floor=best.value)
    return Mapping(cheapest.choice, cheapest.value, cheapest.cost, best.bound, best.gap)


def _program(
    value: FloatArray,
    cost: FloatArray,
    share: FloatArray,
    sizes: FloatArray | None,
    hosting: float | None,
    max_experts: int | None,
    pinned: Sequence[int],
    allowed: BoolArray | None,
) -> _Program:
    value, cost, share = (np.asarray(a, dtype=np.float64) for a in (value, cost, share))
    size = np.zeros(value.shape[-1]) if sizes is None else np.asarray(sizes, dtype=np.float64)
    may = np.ones(value.shape, dtype=bool) if allowed is None else np.asarray(allowed, dtype=bool)
    if value.ndim != 2 or not value.size:
        raise OptionError(f"value: shape {value.shape} is not (categories, experts)")
    c, m = value.shape
    for name, array, shape in (
        ("cost", cost, (c, m)),
        ("share", share, (c,)),
        ("sizes", size, (m,)),
        ("allowed", may, (c, m)),
    ):
        if array.shape != shape:
            raise OptionError(f"{name}: shape {array.shape} does not fit; give {shape}")
    for name, array in (("value", value), ("cost", cost), ("share", share), ("sizes", size)):
        if not np.isfinite(array).all() or (name != "value" and (array < 0).any()):
            raise OptionError(f"{name}: holds a missing or negative number; fill it in first")
    if not may.any(axis=1).all():
        raise BudgetError(f"category {int(np.argmin(may.any(axis=1)))}: no expert is allowed")
    if bad := [e for e in pinned if not 0 <= e < m]:
        raise OptionError(f"pinned: {bad[0]} is not a column of {m} experts")
    return _Program(
        value=value,
        cost=cost,
        share=share / max(share.sum(), 1e-300),
        allowed=may,
        sizes=size,
        hosting=np.inf if hosting is None else hosting,
        max_experts=np.inf if max_experts is None else max_experts,
        pinned=tuple(pinned),
    )


def _separable(program: _Program, objective: FloatArray) -> Mapping:
    """Choose per category; ties go to the cheaper expert, then to the first."""
    masked = np.where(program.allowed, objective, -np.inf)
    top = masked.max(axis=1, keepdims=True)
    is_tied = masked >= top - 1e-12
    choice = np.argmin(np.where(is_tied, program.cost, np.inf), axis=1)
    return _mapping(program, choice, objective, bound=None)


def _milp(
    program: _Program, objective: FloatArray, budget: float, floor: float = -np.inf
) -> Mapping:
    """Solve with HiGHS; the columns are y (c * m), then h (m)."""
    result = _highs(program, _tie_broken(program, objective), budget, floor)
    if result is None:
        raise BudgetError(_why(program, budget))
    y = result.x[: objective.size].reshape(objective.shape)
    choice = np.argmax(y, axis=1)
    return _mapping(program, choice, objective, bound=-float(result.mip_dual_bound))


def _tie_broken(program: _Program, objective: FloatArray) -> FloatArray:
    """Prefer the cheaper, then the first of two experts that are worth the same."""
    scale = max(float(program.cost.max()), 1e-300)
    order = np.arange(objective.shape[1]) / objective.shape[1]
    tilted: FloatArray = objective - 1e-8 * program.cost / scale - 1e-10 * order
    return tilted


def _highs(program: _Program, objective: FloatArray, budget: float, floor: float) -> Any:
    """Return the solver's result, or None where nothing fits."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack, kron

    c, m = objective.shape
    weight = np.repeat(program.share, m)
    one_each = hstack([kron(eye_array(c), np.ones((1, m))), np.zeros((c, m))])
    only_hosted = hstack([eye_array(c * m), kron(-np.ones((c, 1)), eye_array(m))])
    # Costs in units of the dearest, and a value floor, keep the solver's tolerances meaningful.
    unit = max(float(program.cost.max()), 1e-300)
    rows = [
        np.append(weight * program.cost.ravel() / unit, np.zeros(m)),
        np.append(np.zeros(c * m), program.sizes),
        np.append(np.zeros(c * m), np.ones(m)),
        np.append(-weight * program.value.ravel(), np.zeros(m)),
    ]
    limits = [budget / unit * (1 + _SLACK), program.hosting, program.max_experts, -floor + 1e-9]
    upper = np.append(program.allowed.ravel().astype(float), np.ones(m))
    lower = np.zeros(c * m + m)
    lower[[c * m + e for e in program.pinned]] = 1
    result = milp(
        -np.append(weight * objective.ravel(), np.zeros(m)),
        integrality=np.ones(c * m + m),
        bounds=Bounds(lower, upper),
        constraints=[
            LinearConstraint(one_each.tocsr(), 1, 1),
            LinearConstraint(only_hosted.tocsr(), -np.inf, 0),
            LinearConstraint(csr_array(np.stack(rows)), -np.inf, limits),
        ],
        options={"mip_rel_gap": 0},
    )
    return result if result.x is not None else None


def _why(program: _Program, budget: float) -> str:
    """Say which budget would do, if any."""
    cheapest = _highs(program, -program.cost, np.inf, -np.inf)
    if cheapest is None:
        return (
            f"hosting {program.hosting:g}, at most {program.max_experts:g} experts: no set of "
            "experts that serves every category fits; raise the limit or unpin an expert"
        )
    c, m = program.value.shape
    choice = np.argmax(cheapest.x[: c * m].reshape(c, m), axis=1)
    least = float(program.share @ program.cost[np.arange(c), choice])
    # Rounded up, so that the number shown is one that works.
    return (
        f"budget {budget:g}: no mapping costs so little; "
        f"the smallest that fits is {least * (1 + 5e-6):.6g}"
    )


def _mapping(
    program: _Program, choice: IntArray, objective: FloatArray, bound: float | None
) -> Mapping:
    rows = np.arange(len(choice))
    reached = float(program.share @ objective[rows, choice])
    bound = reached if bound is None else max(bound, reached)
    return Mapping(
        choice=choice,
        value=float(program.share @ program.value[rows, choice]),
        cost=float(program.share @ program.cost[rows, choice]),
        bound=bound,
        gap=bound - reached,
    )
