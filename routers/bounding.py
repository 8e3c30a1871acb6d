"""Keep predicted qualities in [0, 1] without making the best experts tie."""

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["bounded"]

_BEND = 0.05  # width of the strips at 0 and 1 in which predictions are bent


def bounded(quality: FloatArray) -> FloatArray:
    """Bend what is near 0 and 1 to stay between, in order: clipped, the best few would tie."""
    inside: FloatArray = quality.clip(_BEND, 1 - _BEND)
    beyond = quality - inside
    if not beyond.any():
        return inside
    bent: FloatArray = inside - np.copysign(_BEND, beyond) * np.expm1(-np.abs(beyond) / _BEND)
    return bent
