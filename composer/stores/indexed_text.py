"""What of a passage is embedded, indexed and reranked."""

from experts_registry.passages import Passage

__all__ = ["indexed_text"]


def indexed_text(passage: Passage) -> str:
    """Return its title and text, as retrievers are trained and judged on."""
    return f"{passage.title} {passage.text}".strip()
