"""Figures of a gate: calibration, ranking, and quality against how often one retrieves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["Curve", "auroc", "curve_of", "ece_by_luck", "ece_of"]

_BINS = 15
_STEPS = 20
_DRAWS = 100


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean quality when the queries of the highest gain are retrieved for.

    Args:
        rates: shares of the queries, from 0 to 1.
        gate: quality at each, ranked by the gate.
        random: by chance.
        oracle: by the gain that came of it.
        area: between gate and chance, as a share of that between oracle and chance.
    """

    rates: tuple[float, ...]
    gate: tuple[float, ...]
    random: tuple[float, ...]
    oracle: tuple[float, ...]
    area: float


def ece_of(chance: FloatArray, y: FloatArray) -> float:
    """Return the expected calibration error over 15 bins of equal mass."""
    order = np.argsort(chance, kind="stable")
    parts = np.array_split(order, min(_BINS, len(order)))
    gaps = [len(rows) * abs(chance[rows].mean() - y[rows].mean()) for rows in parts]
    return float(sum(gaps) / len(order))


def ece_by_luck(chance: FloatArray, seed: int = 0) -> float:
    """Return the calibration error that exact chances (n,) have on so many queries, on average."""
    draws = np.random.default_rng(seed).random((_DRAWS, len(chance))) < chance
    return float(np.mean([ece_of(chance, y.astype(float)) for y in draws]))


def auroc(label: NDArray[np.bool_], score: FloatArray) -> float | None:
    """Return how often a query that passages help is ranked above one that they do not."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label, score)) if 0 < label.sum() < len(label) else None


def curve_of(gain: FloatArray, quality: FloatArray) -> Curve:
    """Follow the best store's arm, taken first where the gain (n,) is highest.

    Args:
        gain: expected.
        quality: (n, 1 + s) by arm.
    """
    store = 1 + int(np.argmax(quality[:, 1:].mean(axis=0)))
    told = quality[:, store] - quality[:, 0]
    rates = np.linspace(0, 1, _STEPS + 1)
    never, total = float(quality[:, 0].mean()), float(told.mean())

    def follow(score: FloatArray) -> FloatArray:
        reached = np.append(0, np.cumsum(told[np.argsort(-score, kind="stable")])) / len(told)
        return never + np.interp(rates * len(told), np.arange(len(reached)), reached)

    random = never + rates * total
    gate, oracle = follow(gain), follow(told)
    most = float((oracle - random).mean())
    return Curve(
        rates=tuple(rates.tolist()),
        gate=tuple(gate.tolist()),
        random=tuple(random.tolist()),
        oracle=tuple(oracle.tolist()),
        area=float((gate - random).mean()) / most if most > 0 else 0.0,
    )
