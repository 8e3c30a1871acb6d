"""A router of your own is one class; `check_router` says whether it keeps the contract."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.data import RoutingDataset
from routers.testing import HashingEncoder, check_router, synthetic_outcomes


@dataclass(kw_only=True)
class KNNRouter(Router):
    """The mean quality of each expert over the nearest training queries."""

    neighbors: int = 8

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        mean = np.nanmean(data.quality, axis=0)  # (m,) stands in where an expert was not tried
        return {"x": x, "quality": np.where(np.isnan(data.quality), mean, data.quality)}

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        similarity = x @ state["x"].T  # (n, train)
        nearest = np.argsort(-similarity, axis=1)[:, : self.neighbors]
        scores: FloatArray = state["quality"][nearest].mean(axis=1)  # (n, m)
        return scores


def main() -> None:
    """Check the router on outcomes with a known signal, then ask it."""
    data = synthetic_outcomes()
    router = KNNRouter(encoder=HashingEncoder())
    with TemporaryDirectory() as folder:
        check_router(router, data, Path(folder))
    print("all checks passed")
    decision = router.fit(data).route(data.queries[0])
    print(f"{decision.primary}: predicted quality {decision.scores[0]:.2f}")


if __name__ == "__main__":
    main()
