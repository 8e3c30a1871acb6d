"""Log-probabilities in OpenAI's two shapes: of chats and of text completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from experts_registry.types import TokenLogprob

__all__ = ["chat_logprobs", "logprob_entries", "text_logprobs"]

_REPLACED = "\ufffd"  # stands for a part of a character, whose bytes are not known here


def chat_logprobs(found: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    """Return those of a chat answer, or of a piece of one."""
    if found is None:
        return None
    return {"content": logprob_entries(found), "refusal": None}


def logprob_entries(
    found: Sequence[TokenLogprob], *, unknown: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return one entry a token, with the likeliest ones beside it.

    Args:
        found: the tokens.
        unknown: stands for bytes that are not known; ``/v1/responses`` takes no null there.
    """

    def entry(one: TokenLogprob) -> dict[str, Any]:
        known: Sequence[int] | None = one.bytes
        if known is None:
            known = unknown if _REPLACED in one.token else one.token.encode("utf-8", "replace")
        told = None if known is None else [*known]
        return {"token": one.token, "logprob": one.logprob, "bytes": told}

    return [{**entry(one), "top_logprobs": [*map(entry, one.top)]} for one in found]


def text_logprobs(
    found: Sequence[TokenLogprob] | None, offset: int, *, top: bool
) -> dict[str, Any] | None:
    """Return those of a text completion, or of a piece of one.

    Args:
        found: the tokens.
        offset: where the first of them begins in the text.
        top: whether the likeliest tokens were asked for.
    """
    if found is None:
        return None
    offsets = []
    for one in found:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in found],
        "token_logprobs": [one.logprob for one in found],
        "top_logprobs": [*map(_likeliest, found)] if top else None,
        "text_offset": offsets,
    }


def _likeliest(one: TokenLogprob) -> Mapping[str, float]:
    """Return the likeliest tokens; the chosen one is always among them."""
    found: dict[str, float] = {}
    for other in (*one.top, one):
        found.setdefault(other.token, other.logprob)
    return found
