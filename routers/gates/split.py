"""Hold queries out to judge a gate on, as routers do."""

import numpy as np

from routers.gates.data import GateData
from routers.splits import split

__all__ = ["split_gate_data"]


def split_gate_data(
    data: GateData, *, test: float = 0.2, seed: int = 0
) -> tuple[GateData, GateData]:
    """Return training and test queries; see `routers.splits.split`.

    Raises:
        DataError: there are too few queries to have both sides.
    """
    found = split(data.table, test=test, seed=seed)
    train, held = (data.select(np.isin(data.ids, part.ids)) for part in (found.train, found.test))
    return train, held
