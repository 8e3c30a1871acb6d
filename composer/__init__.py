"""Ask several experts, compose one answer."""

from typing import TYPE_CHECKING

from experts_registry.lazy import lazy_attributes

if TYPE_CHECKING:
    from composer.dispatch import LocalDispatcher
    from composer.ray_dispatch import RayDispatcher
    from composer.sdk import Composer
    from composer.streaming import Stream
    from composer.trace import Answer, Step
    from routers.base import Decision

__all__ = ["Answer", "Composer", "Decision", "LocalDispatcher", "RayDispatcher", "Step", "Stream"]

_HOMES = {
    "Composer": "composer.sdk",
    **dict.fromkeys(("Answer", "Step"), "composer.trace"),
    "Decision": "routers.base",
    "LocalDispatcher": "composer.dispatch",
    "RayDispatcher": "composer.ray_dispatch",
    "Stream": "composer.streaming",
}
__getattr__ = lazy_attributes(__name__, _HOMES)
