"""Why a retriever was chosen: the numbers of a pilot router as JSON values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experts_registry.types import FloatArray
from routers.pilot_reading import margins

__all__ = ["by_quality", "by_similarity"]

_TOLD = 3  # collections that are named


def by_quality(
    collections: Sequence[str],
    shares: Sequence[float],
    quality: FloatArray,
    general: str | None,
) -> dict[str, Any]:
    """Tell where a query seems to come from.

    Args:
        collections: (g) names; one that was scored at several times comes several times.
        shares: (g) how likely each is.
        quality: (1, m) to expect of the retrievers.
        general: who stands in where no collection is near; None where one is.
    """
    share: dict[str, float] = {}
    for name, one in zip(collections, shares, strict=True):
        share[name] = share.get(name, 0.0) + one
    order = sorted(share, key=lambda name: -share[name])[:_TOLD]
    likely = {name or "(no category)": round(share[name], 4) for name in order}
    nearest = f"nearest collection {next(iter(likely))} ({share[order[0]]:.2f})"
    return {
        "reason": f"general retriever, far from every collection; {nearest}"
        if general
        else nearest,
        "collections": likely,
        "margin": _told(margins(quality)[0]),
        "fallback": general,
    }


def by_similarity(
    experts: Sequence[str], found: FloatArray, temperature: float, tau: float, general: str
) -> dict[str, Any]:
    """Tell whose pilots are near.

    Args:
        experts: the retrievers.
        found: (1, m) similarities to their pilots.
        temperature: what they are divided by to become probabilities.
        tau: lead below which the general retriever stands in.
        general: its name.
    """
    p = np.exp((found[0] - found[0].max()) / temperature)
    p = p / p.sum()
    order = np.argsort(-found[0], kind="stable")
    margin, first = float(margins(found)[0]), experts[order[0]]
    why = f"lead {margin:.3f} < {tau:.3f}" if margin < tau else None
    return {
        "reason": f"general retriever, {why}; nearest pilots are of {first} ({p.max():.2f})"
        if why
        else f"nearest pilots are of {first} ({p.max():.2f})",
        "probabilities": {experts[i]: round(float(p[i]), 4) for i in order.tolist()},
        "margin": _told(margin),
        "entropy": round(float(-(p * np.log(np.maximum(p, 1e-12))).sum()), 4),
        "fallback": general if why else None,
    }


def _told(margin: float) -> float | None:
    return None if np.isinf(margin) else round(float(margin), 4)
