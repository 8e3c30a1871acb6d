"""Prompts that are tokens: read as text by the expert whose tokens they are."""

from collections.abc import Sequence

from composer.sdk import Composer
from experts_registry.errors import OffersError

__all__ = ["text_of"]


async def text_of(composer: Composer, tokens: Sequence[int], *, model: str) -> str:
    """Return the text that tokens of an expert stand for.

    Raises:
        UnknownNameError: no composition or expert is called ``model``.
        OffersError: it is a composition, or an expert whose tokenizer is not here.
        OptionError: one of the tokens is not the expert's.
    """
    composer.candidates(model)
    if model not in composer.registry.llms:
        raise OffersError(
            f"model {model!r}: is a composition, and its experts share no tokens; send the text, "
            "or ask one expert that runs in this process",
            "prompt",
        )
    return await composer.dispatcher.detokenize(model, tokens)
