"""Say what pydantic found in the words of the file: its keys, lists and mappings."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from experts_registry.errors import nearest
from experts_registry.lines import KeyPath
from experts_registry.schema import registry_schema

__all__ = ["Complaint", "complaints"]

Complaint = tuple[KeyPath, str]
"""Where in the file, and what is wrong there."""

_WORDS = (
    (re.compile(r"a valid tuple"), "a list"),
    (re.compile(r"a valid dictionary( or instance of \w+)?"), "a mapping"),
    (re.compile(r"a valid string"), "text; quote a number"),
    (
        re.compile(r"String should match pattern '\^\[A-Za-z.*"),
        "Name should be of letters, digits and ._:/@- and begin with a letter or digit",
    ),
    (
        re.compile(r"String should match pattern '\^\[0-9a-f.*"),
        "Input should be 64 characters of 0-9 and a-f, as sha256sum prints them",
    ),
)


def complaints(error: ValidationError, data: Mapping[str, Any]) -> list[Complaint]:
    """Return one complaint per key, in pydantic's order."""
    found: dict[KeyPath, list[str]] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        where = _in_file(detail["loc"], data)
        if (what := _words(detail, where)) not in found.setdefault(where, []):
            found[where].append(what)
    # Of a union, the alternative that got further in is the one that was meant.
    meant = [w for w in found if not any(o != w and o[: len(w)] == w for o in found)]
    return [(where, " or ".join(found[where])) for where in meant]


def _in_file(loc: tuple[int | str, ...], data: Any) -> KeyPath:
    """Drop the steps of a location that name alternatives of a union, not keys of the file."""
    path: list[int | str] = []
    for i, step in enumerate(loc):
        if isinstance(data, Mapping) and step in data:
            data = data[str(step)]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        elif i < len(loc) - 1 or not isinstance(data, Mapping) or step not in _keys(tuple(path)):
            continue
        path.append(step)
    return tuple(path)


def _words(detail: ErrorDetails, where: KeyPath) -> str:
    what = detail["msg"]
    for pattern, words in _WORDS:
        what = pattern.sub(words, what)
    if detail["type"] == "extra_forbidden":
        what += nearest(str(where[-1]), _keys(where[:-1]))
    return what


def _keys(path: KeyPath) -> tuple[str, ...]:
    """Return the keys that a mapping at this place of the file may have."""
    node: Mapping[str, Any] = _schema()
    for step in path:
        node = _resolved(node)
        node = node.get("items", {}) if isinstance(step, int) else node["properties"].get(step, {})
    return tuple(_resolved(node).get("properties", ()))


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, and of a union take the alternative that has keys."""
    if "$ref" in node:
        definitions: Mapping[str, Any] = _schema()["$defs"]
        return definitions[node["$ref"].rpartition("/")[2]]  # type: ignore[no-any-return]
    options = [_resolved(option) for option in node.get("anyOf", ())]
    return next((o for o in options if "properties" in o or "items" in o), node)


@cache
def _schema() -> dict[str, Any]:
    return registry_schema()
