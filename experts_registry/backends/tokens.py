"""Texts from the tokens that a client sends in their place."""

from collections.abc import Sequence
from typing import Any

from experts_registry.errors import OptionError

__all__ = ["text_of"]


def text_of(where: str, tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return what tokens stand for, special ones left out.

    Raises:
        OptionError: one of them is not of this tokenizer.
    """
    size = len(tokenizer)
    if wrong := [token for token in tokens if not 0 <= token < size]:
        raise OptionError(
            f"{where}: {wrong[0]} is no token id of its tokenizer; use 0 to {size - 1}, "
            "or send the text"
        )
    text: str = tokenizer.decode(
        [*tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text
