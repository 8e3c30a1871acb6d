"""What of a passage is embedded, indexed and reranked."""

from experts_registry.passages import Passage

__all__ = ["indexed_text"]


def indexed_text(passage: Passage) -> str:
    """Return its title and text; a title that the text begins with is not said twice."""
    if passage.text.lstrip("# \t").startswith(passage.title):
        return passage.text
    return f"{passage.title} {passage.text}"
