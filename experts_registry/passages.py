"""A passage: a piece of a document that can be retrieved."""

from dataclasses import dataclass

__all__ = ["Passage"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A retrieved text with where it came from and how well it matched.

    Args:
        id: unique in its store.
        text: what the expert reads.
        score: how well it matches the query; only comparable within one search.
        store: where it was found.
        title: of its document.
        source: the document it was cut from: a file, relative to the store's passages, or the
            id of a JSON line.
        start: its first character in that document.
        end: behind its last.
        retrievers: who found it.
    """

    id: str
    text: str
    score: float = 0.0
    store: str = ""
    title: str = ""
    source: str = ""
    start: int = 0
    end: int = 0
    retrievers: tuple[str, ...] = ()
