"""Keep experts in use: one count of who was asked, for training losses and for serving.

Qiu et al., "Demons in the Detail", https://arxiv.org/abs/2501.11873: balance over the corpus, not
over each small batch, which punishes experts for specialising. With f_e the share of selections of
expert e over everything that was counted, and P_e the mean probability of it in a batch:

    L = m sum_e f_e P_e, 1 at balance
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.transforms import Context

__all__ = [
    "Balance",
    "Usage",
    "balance_gradient",
    "balance_loss",
    "cv_feedback",
    "entropy",
    "entropy_gradient",
]


class Usage:
    """Count who was asked, by name; several threads may.

    Training counts exactly and resets after each optimiser step. Serving gives a half-life, after
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


def balance_loss(probability: FloatArray, share: FloatArray, *, nulls: int = 0) -> float:
    """Return m sum_e f_e P_e of one batch: 1 at balance, m where one expert has everything.

    The share f is not differentiated. Of several micro-batches or workers, add the counts to one
    `Usage` first; the mean of their losses is then that of the batch they make together.

    Args:
        probability: (n, m) softmax of the scores, one row per query.
        share: (m,) of the selections, in sum 1.
        nulls: how many of the last columns are nulls; these share what they have alike, so that
            only their sum is held at balance (Zeng et al., "AdaMoE").
    """
    f = _level_nulls(share, nulls)
    return float(len(f) * (f * probability.mean(axis=0)).sum())


def balance_gradient(probability: FloatArray, share: FloatArray, *, nulls: int = 0) -> FloatArray:
    """Return the gradient of `balance_loss` by the scores (n, m), before the softmax.

    It is zero at balance, f_e = 1/m, whatever the probabilities.
    """
    f = _level_nulls(share, nulls)
    expected = (probability * f).sum(axis=1, keepdims=True)
    gradient: FloatArray = len(f) * probability * (f - expected) / len(probability)
    return gradient


def entropy(probability: FloatArray) -> float:
    """Return the mean over queries of -sum_e p_e log p_e.

    LoRA-Mixer, https://arxiv.org/abs/2507.00029, adds it to the balance loss; its sign there
    flattens each query's choice. Added with a positive weight, it sharpens it.
    """
    return float(_entropies(probability).mean())


def entropy_gradient(probability: FloatArray) -> FloatArray:
    """Return the gradient of `entropy` by the scores (n, m); zero where a choice is certain."""
    surprise = -np.log(np.maximum(probability, _TINY))
    mean = _entropies(probability)[:, None]
    gradient: FloatArray = probability * (surprise - mean) / len(probability)
    return gradient


def cv_feedback(weights: FloatArray) -> float:
    """Return the squared coefficient of variation of the experts' summed weights (n, m).

    Kong et al., "Enabling Flexible Multi-LLM Integration", https://arxiv.org/abs/2505.23844; zero
    where all are used alike, and for a single expert.
    """
    importance = weights.sum(axis=0)
    mean = float(importance.mean())
    return float(importance.var()) / mean**2 if mean else 0.0


_TINY = 1e-300  # its logarithm is finite


def _entropies(probability: FloatArray) -> FloatArray:
    terms = probability * np.log(np.maximum(probability, _TINY))
    entropies: FloatArray = -terms.sum(axis=1)
    return entropies


def _level_nulls(share: FloatArray, nulls: int) -> FloatArray:
    if not nulls:
        return share
    level = share[-nulls:].mean()
    return np.append(share[:-nulls], np.full(nulls, level))
