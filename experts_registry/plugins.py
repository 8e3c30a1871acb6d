"""Find an implementation by its registered name, or by ``module:Name``."""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from experts_registry.errors import PluginError, nearest

__all__ = ["load_plugin", "plugin_names"]


_ONE = {
    "backends": "backend",
    "policies": "policy",
    "routers": "router",
    "strategies": "strategy",
}


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def plugin_names(group: str) -> list[str]:
    """List what is registered under a group, for example ``routers``."""
    return sorted(_points(group))


def load_plugin(group: str, name: str) -> Any:
    """Load a plug-in by registered name or as ``module:Name``.

    Raises:
        PluginError: nothing has that name, or importing it failed.
    """
    point = _points(group).get(name)
    if point is None and ":" not in name:
        known = plugin_names(group)
        raise PluginError(
            f"{_ONE[group]} {name!r} is not one of {', '.join(known)}{nearest(name, known)}; "
            "a plug-in of your own is named 'module:Name'"
        )
    module, _, attribute = (point.value if point else name).partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # whatever a file of the user does when it is imported
        raise PluginError(
            f"{_ONE[group]} {name!r}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
