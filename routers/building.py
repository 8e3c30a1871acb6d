"""Make a router from its registered name and its hyperparameters."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from experts_registry.errors import OptionError, PluginError, nearest
from experts_registry.plugins import load_plugin
from experts_registry.types import Embedder
from routers.base import Router

__all__ = ["build_router"]


def build_router(name: str, encoder: Embedder, options: Mapping[str, Any]) -> Router:
    """Make an unfitted router by registered name or ``module:Name``.

    Raises:
        PluginError: there is no such router.
        OptionError: it has no such hyperparameter, or refuses the value.
    """
    cls = load_plugin("routers", name)
    if not (isinstance(cls, type) and issubclass(cls, Router)):
        raise PluginError(f"router {name!r}: is not a subclass of routers.Router")
    known = [f.name for f in fields(cls) if f.init and f.name != "encoder"]
    hints = _hints(cls) if options else {}
    values = {}
    for key, value in options.items():
        if key not in known:
            raise OptionError(
                f"router {name!r}: {key!r} is not one of {', '.join(known)}{nearest(key, known)}"
            )
        values[key] = _checked(f"router {name!r}: {key}", hints.get(key, Any), value)
    return cls(encoder=encoder, **values)


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of the fields; none where a plug-in names types that cannot be found."""
    try:
        return get_type_hints(cls)
    except NameError:
        return {}


def _checked(where: str, hint: Any, value: Any) -> Any:
    """Return a value that fits the type of its field, as it came: a saved router is JSON."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError:  # a type of the plug-in's own, which it checks itself
        return value
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        raise OptionError(f"{where}: {error.errors()[0]['msg']}, not {value!r}") from None
    return checked if isinstance(checked, bool | int | float | str) else value
