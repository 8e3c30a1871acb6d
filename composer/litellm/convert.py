"""Convert the configuration file of a LiteLLM proxy to an expert file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from composer.litellm.deployments import Defaults, read_deployment, retries
from composer.litellm.groups import Groups
from composer.litellm.sections import Left, Reading, Section
from experts_registry.errors import RegistryError
from experts_registry.lines import parse_yaml, read_text
from experts_registry.registry import Registry

__all__ = ["Imported", "import_litellm", "write_imported"]

_BREAKER = "every expert has a circuit breaker of its own, which needs no setting"
_WHYS = {
    "allowed_fails": _BREAKER,
    "cooldown_time": _BREAKER,
    "allowed_fails_policy": _BREAKER,
    "routing_strategy": "of several experts a trained router chooses; until there is one, the "
    "cheapest is asked",
    "master_key": "a key is not copied; make keys with 'expert-composer keys create NAME --admin'",
    "database_url": "keys and spending are in keys.db beside the file, or where 'keys:' says",
    "drop_params": "what an expert does not know is passed on, or refused",
    "environment_variables": "set them where the server is started",
    "include": "other files are not read; import each",
}
_SETTINGS = ("router_settings", "litellm_settings")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An expert file, and what of the other is not in it."""

    text: str
    registry: Registry
    left: tuple[Left, ...]


def import_litellm(source: Path, target: Path) -> Imported:
    """Convert a file; nothing is written.

    Args:
        source: LiteLLM's configuration.
        target: where the expert file is to be, which its errors name.

    Raises:
        RegistryError: it is no such file, or nothing of it can be converted.
    """
    document = parse_yaml(read_text(source), str(source))
    reading = Reading(str(source), document)
    root = reading.section((), document.data)
    entries = root.take("model_list")
    if not isinstance(entries, list):
        raise RegistryError(f"{source}:1: model_list: is missing; name a LiteLLM configuration")
    settings = [root.take_section(name) for name in _SETTINGS]
    groups = _groups(reading, entries, settings)
    for section in [*settings, root.take_section("general_settings"), root]:
        section.leave_rest(_WHYS)
    left = tuple(sorted(reading.left, key=lambda one: one.line))
    experts = groups.experts()
    if not experts:
        reasons = "\n".join(f"{source}:{one.line}: {one.key}: {one.why}" for one in left)
        raise RegistryError(f"{source}: nothing of it can be converted\n{reasons}")
    text = _written(
        source, {"version": 1, "experts": experts, "compositions": groups.compositions()}
    )
    return Imported(text=text, registry=Registry.parse(text, path=target), left=left)


def write_imported(imported: Imported, target: Path, *, force: bool = False) -> None:
    """Write the expert file.

    Raises:
        RegistryError: there is a file already and ``force`` is not given, or it cannot be written.
    """
    try:
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(imported.text)
    except FileExistsError:
        raise RegistryError(f"{target}: exists; use --force to replace it") from None
    except OSError as error:
        raise RegistryError(f"{target}: cannot be written: {error.strerror}") from error


def _groups(reading: Reading, entries: list[Any], settings: list[Section]) -> Groups:
    groups, defaults = Groups(), _defaults(settings)
    for i, value in enumerate(entries):
        entry = reading.section(("model_list", i), value)
        if (deployment := read_deployment(entry, defaults)) is not None:
            groups.add(deployment, entry)
    for section in settings:
        groups.read_fallbacks(section)
        groups.read_aliases(section)
    return groups


def _defaults(settings: list[Section]) -> Defaults:
    """Return the limits of all deployments; the router's settings count before the others."""
    limits: dict[str, Any] = {}
    for section in reversed(settings):
        found = {
            "seconds": section.take_number("timeout", "request_timeout"),
            "first_token_seconds": section.take_number("stream_timeout"),
            "retries": retries(section),
        }
        limits |= {key: value for key, value in found.items() if value is not None}
    return Defaults(limits=limits)


def _written(source: Path, values: dict[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if value}
    body = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100, indent=2)
    return f"# From {source.name}, with 'expert-composer import-litellm'.\n{body}"
