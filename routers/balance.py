"""Keep experts in use: one count of who was asked, and scores that lean towards the others.

Qiu et al., "Demons in the Detail", https://arxiv.org/abs/2501.11873: balance over all traffic, not
over each small batch, which would punish experts for specialising.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.transforms import Context

__all__ = ["Balance", "Usage"]


class Usage:
    """Count who was asked, by name; several threads may.

    Without a half-life it counts exactly until it is reset. Serving gives one, after
    which a decision counts half.

    Args:
        half_life: in decisions; None never forgets.
    """

    def __init__(self, half_life: float | None = None) -> None:
        if half_life is not None and not 0 < half_life < np.inf:
            raise OptionError(f"half_life: {half_life!r} is not a number of decisions above 0")
        self._half_life = half_life
        self._counts: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, counts: Mapping[str, float]) -> None:
        """Count decisions: how often, or with which weight, each expert was asked."""
        with self._lock:
            if self._half_life is not None:
                kept = 0.5 ** (sum(counts.values()) / self._half_life)
                self._counts = {name: kept * count for name, count in self._counts.items()}
            for name, count in counts.items():
                self._counts[name] = self._counts.get(name, 0.0) + count

    def counts(self, experts: Sequence[str]) -> NDArray[np.float64]:
        """Return how often these experts were asked (m,)."""
        with self._lock:
            return np.array([self._counts.get(name, 0.0) for name in experts], dtype=np.float64)

    def share(self, experts: Sequence[str]) -> NDArray[np.float64]:
        """Return their shares among themselves (m,); equal ones where none was asked."""
        counts = self.counts(experts)
        if not counts.any():
            return np.full(len(counts), 1 / max(len(counts), 1))
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts = {}


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Lower the score of each expert that is asked more than its share, a score transform.

    By weight * (share - 1/m) over the m experts of the prediction. The share is taken with one
    more decision for everybody, so that the first few change little.

    Args:
        weight: quality given up where one expert gets everything; 0 changes nothing.
        usage: who was asked; whoever asks also counts there.
    """

    weight: float
    usage: Usage

    def __post_init__(self) -> None:
        if not 0 <= self.weight < np.inf:
            raise OptionError(f"balance: {self.weight!r} is not a number of at least 0")

    def __call__(self, scores: FloatArray, context: Context) -> FloatArray:
        """Return the lowered scores (n, m)."""
        if not self.weight:
            return scores
        counts = self.usage.counts(context.prediction.experts) + 1
        over = np.maximum(counts / counts.sum() - 1 / len(counts), 0)
        lowered: FloatArray = scores - self.weight * over
        return lowered

    def note(self, before: FloatArray, after: FloatArray, context: Context) -> str | None:
        """Say who lost the first place by it."""
        was, now = int(before[0].argmax()), int(after[0].argmax())
        if was == now:
            return None
        names = context.prediction.experts
        return (
            f"{names[was]} has had more than its share lately: {names[now]} to spread the traffic"
        )


_TINY = 1e-300  # its logarithm is finite
