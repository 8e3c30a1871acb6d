"""A world in two regimes: facts that the toy expert knows, and facts that only the corpus has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from routers.gates.data import GateData
from routers.gating import Gate
from routers.testing import HashingEncoder

KNOWN = "Which ocean or river or mountain is near the capital of country number"
UNKNOWN = "What does paragraph of our travel expense handbook say on allowance number"


def two_regimes(
    n: int = 240,
    *,
    misleading: float = 0.3,
    seed: int = 0,
    drafts: bool = False,
    searched: bool = False,
) -> list[dict[str, Any]]:
    """Return outcomes: passages help the second kind of question, and mislead on the first."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        is_known = bool(i % 2)
        misled = bool(rng.random() < misleading)
        similarity = [0.2, 0.1] if is_known else [0.8, 0.4]
        row = {
            "query_id": f"q{i}",
            "query": f"{KNOWN if is_known else UNKNOWN} {i}?",
            "category": "world" if is_known else "handbook",
            "seconds": 1.0,
        }
        sure = {"tokens": 4.0, "mean_logprob": -0.1 if is_known else -2.0, "min_logprob": -1.0,
                "first_logprob": -0.5, "mean_entropy": 1.0, "max_entropy": 2.0}  # fmt: skip
        rows.append(
            row | {"expert": "toy", "quality": float(is_known), "cost_usd": 0.001,
                   "draft": sure if drafts else None}
        )  # fmt: skip
        rows.append(
            row | {"expert": "toy+handbook", "quality": float(not (is_known and misled)),
                   "cost_usd": 0.004, "passages": ["a", "b"], "seconds": 1.5,
                   "similarity": similarity if searched else None}
        )  # fmt: skip
    return rows


def shuffled(rows: list[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return the same outcomes, given to other questions."""
    ids = sorted({row["query_id"] for row in rows})
    texts = {row["query_id"]: row["query"] for row in rows}
    other = dict(zip(ids, np.random.default_rng(seed).permutation(ids), strict=True))
    return [row | {"query": texts[other[row["query_id"]]], "category": ""} for row in rows]


def halves(data: GateData) -> tuple[GateData, GateData]:
    """Return pairs of rows in turn, so that both regimes are on both sides."""
    is_test = np.arange(len(data)) // 2 % 2 == 1
    return data.select(~is_test), data.select(is_test)


def utility(data: GateData, arm: np.ndarray, price: Mapping[int, float]) -> float:
    """Return the mean of quality less price."""
    paid = np.array([price.get(int(a), 0.0) for a in arm])
    return float((data.quality[np.arange(len(data)), 0, arm] - paid).mean())


@pytest.fixture(scope="session")
def world():
    return halves(GateData.of(two_regimes()))


@pytest.fixture(scope="session")
def gate(world):
    return Gate.fit(world[0], HashingEncoder())
