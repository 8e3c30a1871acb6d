"""A document, as it was read, before it is cut into passages."""

from dataclasses import dataclass

__all__ = ["Document"]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text with where it came from.

    Args:
        id: of a JSON line its own, of a file its path in the store's folder.
        text: offsets of passages count its characters.
        title: its own title, or an empty string.
        source: what a passage of it cites: the file, or the id of the JSON line.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
