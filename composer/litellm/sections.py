"""The file as it is read: whatever is not taken from it is told, with its line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experts_registry.errors import RegistryError
from experts_registry.lines import Document, KeyPath

__all__ = ["Left", "Reading", "Section"]

_NOTHING_LIKE_IT = "there is nothing like it here"


@dataclass(frozen=True)
class Left:
    """One thing that was not converted, or not as it was; never its value, which may be secret."""

    line: int
    key: str
    why: str


@dataclass
class Reading:
    """One file, and what of it is left."""

    name: str
    document: Document
    left: list[Left] = field(default_factory=list)

    def leave(self, path: KeyPath, why: str) -> None:
        """Tell that something is not converted."""
        self.left.append(Left(self.document.line(path), ".".join(map(str, path)), why))

    def section(self, path: KeyPath, value: Any) -> "Section":
        """Return a mapping to take from; an empty one where there is nothing.

        Raises:
            RegistryError: it is something else.
        """
        if value is not None and not isinstance(value, Mapping):
            key = ".".join(map(str, path))
            raise RegistryError(
                f"{self.name}:{self.document.line(path)}: {key}: is a {type(value).__name__}; "
                "LiteLLM has a mapping here"
            )
        return Section(self, path, dict(value or {}))


@dataclass
class Section:
    """A mapping that is emptied while it is read."""

    reading: Reading
    path: KeyPath
    values: dict[str, Any]

    def take(self, key: str) -> Any:
        """Return a value, which counts as read; None where there is none."""
        return self.values.pop(key, None)

    def take_text(self, *keys: str) -> str:
        """Return the first of these that is a text; an empty one where none is."""
        found = [value for key in keys if isinstance(value := self.take(key), str)]
        return found[0].strip() if found else ""

    def take_number(self, *keys: str) -> float | None:
        """Return the first of these that is a number above 0."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(self.take(key))
            if value is not None:
                self.leave(key, "is no number above 0")
        return None

    def take_section(self, key: str) -> "Section":
        """Return a mapping within this one."""
        return self.reading.section((*self.path, key), self.take(key))

    def leave(self, key: str, why: str) -> None:
        """Tell that a key is not converted."""
        self.values.pop(key, None)
        self.reading.leave((*self.path, key), why)

    def leave_rest(self, whys: Mapping[str, str]) -> None:
        """Tell of every key that nobody took."""
        for key in list(self.values):
            self.leave(key, whys.get(key, _NOTHING_LIKE_IT))
