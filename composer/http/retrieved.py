"""What the answers of retrievers and rerankers have in common: their usage and their headers."""

import math
from collections.abc import Sequence

from composer.sdk import Composer

__all__ = ["CHARACTERS_PER_TOKEN", "headers_of", "tokens_in"]

CHARACTERS_PER_TOKEN = 4  # retrievers do not count; a rough mean over English tokenizers


def tokens_in(text: str | Sequence[int]) -> int:
    """Return how many tokens a text is taken for, or how many were sent in its place."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN) if isinstance(text, str) else len(text)


def headers_of(composer: Composer, expert: str) -> dict[str, str]:
    """Return the headers that tell who computed."""
    return {
        "x-composer-expert": expert,
        "x-composer-generation": str(composer.registry.generation),
    }
