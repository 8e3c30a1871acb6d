"""LiteLLM's model groups as compositions: their deployments, aliases and fallbacks."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

from composer.litellm.deployments import Deployment
from composer.litellm.sections import Section
from composer.routing import AUTO

__all__ = ["Groups"]

_KINDS = {
    "fallbacks": "any",
    "context_window_fallbacks": "context_length",
    "content_policy_fallbacks": "content_policy",
}
T = TypeVar("T")
_SPREAD = (
    "the load is spread over deployments of one model at one price, the least busy first; of "
    "others the cheapest is asked until a router is trained, and the rest where it fails"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,119}")


@dataclass
class Groups:
    """Experts by the names that clients ask for."""

    members: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    _fallbacks: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)
    _names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, deployment: Deployment, entry: Section) -> None:
        """Add a deployment to its group."""
        if not _NAME.fullmatch(deployment.group):
            why = "its model_name is no name here; use letters, digits and . _ : / @ -"
            entry.reading.leave(entry.path, why)
            return
        if deployment.group in self.members:
            entry.reading.leave((*entry.path, "model_name"), _SPREAD)
        self.members.setdefault(deployment.group, []).append(deployment.spec)

    def read_fallbacks(self, settings: Section) -> None:
        """Take the fallbacks of a section of settings; once every deployment is there."""
        for theirs, ours in _KINDS.items():
            for group, targets in self._pairs(settings, theirs):
                kinds = self._fallbacks.setdefault(group, {})
                kinds.setdefault(ours, []).extend(targets)
        for target in self._known(
            settings, "default_fallbacks", self._shaped(settings, "default_fallbacks", list)
        ):
            for group in self.members:
                if group != target:
                    self._fallbacks.setdefault(group, {}).setdefault("any", []).append(target)

    def read_aliases(self, settings: Section) -> None:
        """Take further names of groups."""
        aliases = self._shaped(settings, "model_group_alias", dict)
        for alias, target in aliases.items() if aliases else ():
            group = target.get("model") if isinstance(target, Mapping) else target
            if self._has(group) and alias not in self.members and _NAME.fullmatch(alias):
                self._aliases[alias] = group
            else:
                self._leave(
                    settings, "model_group_alias", f"alias {alias!r}: its model is not here"
                )

    def experts(self) -> list[dict[str, Any]]:
        """Return every expert with its name: its group's, where no composition has that."""
        taken = {*self.members, *self._aliases}
        experts = []
        for group, specs in self.members.items():
            names = _numbered(group, len(specs), taken) if self._is_composed(group) else [group]
            self._names[group] = names
            experts += [{"name": n, **spec} for n, spec in zip(names, specs, strict=True)]
        return experts

    def compositions(self) -> list[dict[str, Any]]:
        """Return the groups that are more than one expert; after `experts`."""
        named = [(g, g) for g in self.members if self._is_composed(g)]
        made = []
        for name, group in [*named, *self._aliases.items()]:
            composition: dict[str, Any] = {"name": name, "experts": [*self._names[group]]}
            if fallbacks := self._named_fallbacks(group):
                composition["fallbacks"] = fallbacks
            made.append(composition)
        return made

    def _is_composed(self, group: str) -> bool:
        return len(self.members[group]) > 1 or group in self._fallbacks or group == AUTO

    def _named_fallbacks(self, group: str) -> dict[str, list[str]]:
        """Return the experts of the groups to fall back to; the rest of its own come first."""
        own = self._names[group] if len(self._names[group]) > 1 else []
        found = {}
        for kind, targets in self._fallbacks.get(group, {}).items():
            names = own if kind == "any" else []
            names = [*names, *(name for target in targets for name in self._names[target])]
            found[kind] = list(dict.fromkeys(names))
        return found

    def _pairs(self, settings: Section, key: str) -> Iterator[tuple[str, list[str]]]:
        """Yield group and targets of ``[{group: [target, ...]}, ...]``."""
        for one in self._shaped(settings, key, list) or []:
            for group, targets in one.items() if isinstance(one, Mapping) else ():
                if group not in self.members:
                    self._leave(settings, key, f"{group!r} is not here, so nobody falls back")
                elif known := self._known(settings, key, targets):
                    yield group, known

    def _shaped(self, settings: Section, key: str, kind: type[T]) -> T | None:
        value = settings.values.get(key)
        if value is not None and not isinstance(value, kind):
            settings.leave(key, f"is a {type(value).__name__}, which LiteLLM does not read here")
            return None
        return settings.take(key)  # type: ignore[no-any-return]

    def _known(self, settings: Section, key: str, targets: Any) -> list[str]:
        names = targets if isinstance(targets, list) else []
        for name in names:
            if not self._has(name):
                self._leave(settings, key, f"{name!r:.80} is not here, so nobody falls back to it")
        return [name for name in names if self._has(name)]

    def _has(self, name: Any) -> TypeGuard[str]:
        return isinstance(name, str) and name in self.members

    def _leave(self, settings: Section, key: str, why: str) -> None:
        settings.reading.leave((*settings.path, key), why)


def _numbered(group: str, count: int, taken: set[str]) -> list[str]:
    """Return ``group-1``, ``group-2`` ... without names that others have."""
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        if (name := f"{group}-{number}") not in taken:
            names.append(name)
            taken.add(name)
    return names
