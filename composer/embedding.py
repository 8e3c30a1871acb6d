"""Embed texts, or tokens of the retriever's, in its own dimensions or fewer."""

from collections.abc import Sequence

from experts_registry.errors import OffersError
from experts_registry.types import Embedder, FloatArray, Role

__all__ = ["Texts", "embedded"]

Texts = Sequence[str | Sequence[int]]


def embedded(
    embedder: Embedder, name: str, texts: Texts, *, role: Role, dimensions: int | None
) -> FloatArray:
    """Return one unit float32 row per text, (n, d).

    Raises:
        OffersError: the retriever has no tokenizer, or no vectors of that size.
        OptionError: one of the tokens is not the retriever's.
    """
    x = embedder.embed([_text(embedder, name, text) for text in texts], role=role)
    if dimensions is None or dimensions == x.shape[1]:
        return x
    shorten = getattr(embedder, "shortened", None)
    if shorten is None or dimensions > x.shape[1]:
        raise OffersError(
            f"dimensions: {name!r} has {x.shape[1]} and gives no {dimensions}; leave it out",
            "dimensions",
        )
    shorter: FloatArray = shorten(x, dimensions)
    return shorter


def _text(embedder: Embedder, name: str, text: str | Sequence[int]) -> str:
    if isinstance(text, str):
        return text
    read = getattr(embedder, "detokenize", None)
    if read is None:
        raise OffersError(f"input: {name!r} reads texts and has no tokens; send texts", "input")
    read_text: str = read(text)
    return read_text
