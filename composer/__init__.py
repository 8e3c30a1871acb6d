"""Ask several experts, compose one answer."""

from typing import TYPE_CHECKING

from experts_registry.lazy import lazy_attributes

if TYPE_CHECKING:
    from composer.dispatch import LocalDispatcher
    from composer.ray_dispatch import RayDispatcher
    from composer.sdk import Answer, Composer, Step, Stream
    from routers.base import Decision

__all__ = ["Answer", "Composer", "Decision", "LocalDispatcher", "RayDispatcher", "Step", "Stream"]

_HOMES = {
    **dict.fromkeys(("Answer", "Composer", "Step", "Stream"), "composer.sdk"),
    "Decision": "routers.base",
    "LocalDispatcher": "composer.dispatch",
    "RayDispatcher": "composer.ray_dispatch",
}
__getattr__ = lazy_attributes(__name__, _HOMES)
