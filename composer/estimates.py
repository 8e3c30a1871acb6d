"""Tokens that nobody counted: a rough mean where a server does not tell, the most where it cannot.

Budgets, headers, metrics and the decision log all read the steps that are priced with these.
"""

from collections.abc import Mapping
from math import ceil

from experts_registry.retrieval_schema import RetrievalSpec, StoreSpec
from experts_registry.schema import ExpertSpec
from experts_registry.types import Generation, Prompt, Usage

__all__ = ["CHARACTERS_PER_TOKEN", "counted", "most", "most_passages", "most_read", "most_written"]

CHARACTERS_PER_TOKEN = 4  # a rough mean over English tokenizers, good enough to price a call
_BYTES_PER_TOKEN = 2  # what a tokenizer hardly ever stays below: a reservation is for the most
_TOKENS_PER_WORD = 6  # of a passage, at most: a word of 11 letters and the space behind it
_TOKENS_AROUND = 64  # a passage's number and title, and its share of what introduces it
_ANSWER_TOKENS = 4096  # reserved where nothing limits the answer


def counted(prompt: Prompt, generation: Generation) -> Usage:
    """Return the usage that an expert tells; estimated where it tells none of what there was."""
    read, written = generation.usage.prompt_tokens, generation.usage.completion_tokens
    if read > 0 and written > 0:
        return generation.usage
    return Usage(
        prompt_tokens=read if read > 0 else _tokens(_read(prompt)),
        completion_tokens=written if written > 0 else _tokens(_written(generation)),
    )


def most_passages(retrieval: RetrievalSpec | None, stores: Mapping[str, StoreSpec]) -> int:
    """Return the most tokens of passages that come before a question; 0 without retrieval.

    Args:
        retrieval: of the composition.
        stores: those that may be read.
    """
    if retrieval is None:
        return 0
    words = [stores[name].chunk.words for name in retrieval.stores if name in stores]
    if not words:
        return 0
    return retrieval.k * (max(words) * _TOKENS_PER_WORD + _TOKENS_AROUND)


def most(spec: ExpertSpec, prompt: Prompt) -> Usage:
    """Return the most tokens that one call may take."""
    return Usage(prompt_tokens=most_read(prompt), completion_tokens=most_written(spec, prompt))


def most_read(prompt: Prompt) -> int:
    """Return the most tokens that an expert may read of a prompt."""
    texts = [f"{message.content}{message.extra or ''}" for message in prompt.messages]
    texts += [str(prompt.extra)] if prompt.extra else []  # tools, schemas
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return size // _BYTES_PER_TOKEN + 8 * len(prompt.messages)


def most_written(spec: ExpertSpec, prompt: Prompt) -> int:
    """Return the most tokens that an expert may write."""
    limits = (prompt.sampling.max_tokens, spec.limits.max_tokens, _ANSWER_TOKENS)
    return prompt.sampling.n * next(limit for limit in limits if limit is not None)


def _tokens(characters: int) -> int:
    return ceil(characters / CHARACTERS_PER_TOKEN)


def _read(prompt: Prompt) -> int:
    size = len(str(prompt.extra)) if prompt.extra else 0
    for message in prompt.messages:
        # Parts under "content" are that text once more, and pictures, which are no text.
        rest = {key: value for key, value in message.extra.items() if key != "content"}
        size += len(message.content) + (len(str(rest)) if rest else 0)
    return size


def _written(generation: Generation) -> int:
    choices = generation.choices
    return sum(len(c.text) + (len(str(c.extra)) if c.extra else 0) for c in choices)
