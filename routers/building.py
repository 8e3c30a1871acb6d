"""Make a router or a selection policy from its registered name and its settings."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from experts_registry.errors import OptionError, PluginError, nearest
from experts_registry.plugins import load_plugin
from experts_registry.types import Embedder
from routers.base import Router
from routers.policies import Policy

__all__ = ["build_policy", "build_router"]


def build_router(name: str, encoder: Embedder, options: Mapping[str, Any]) -> Router:
    """Make an unfitted router by registered name or ``module:Name``.

    Raises:
        PluginError: there is no such router.
        OptionError: it has no such hyperparameter, or refuses the value.
    """
    cls = load_plugin("routers", name)
    if not (isinstance(cls, type) and issubclass(cls, Router)):
        raise PluginError(f"router {name!r}: is not a subclass of routers.Router")
    values = _values(f"router {name!r}", cls, options, without=("encoder",))
    return cls(encoder=encoder, **values)


def build_policy(name: str, options: Mapping[str, Any]) -> Policy:
    """Make a selection policy by registered name or ``module:Name``.

    Raises:
        PluginError: there is no such policy.
        OptionError: it has no such setting, or refuses the value.
    """
    cls = load_plugin("policies", name)
    if not (isinstance(cls, type) and issubclass(cls, Policy)):
        raise PluginError(f"policy {name!r}: is not a subclass of routers.policies.Policy")
    policy: Policy = cls(**_values(f"policy {name!r}", cls, options))
    return policy


def _values(
    where: str, cls: type, options: Mapping[str, Any], *, without: Collection[str] = ()
) -> dict[str, Any]:
    """Return the options as arguments of a dataclass, their names and types checked."""
    known = [f.name for f in fields(cls) if f.init and f.name not in without]
    hints = _hints(cls) if options else {}
    values = {}
    for key, value in options.items():
        if key not in known:
            listed = f"is not one of {', '.join(known)}{nearest(key, known)}"
            raise OptionError(
                f"{where}: {key!r} {listed if known else 'is not known; it has no settings'}"
            )
        values[key] = _checked(f"{where}: {key}", hints.get(key, Any), value)
    return values


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
