"""Several answers of one call, from what gives fewer of them at a time."""

from collections.abc import Sequence
from dataclasses import replace

from experts_registry.types import Generation, Prompt, Usage

__all__ = ["joined", "remaining"]


def remaining(prompt: Prompt, begun: int, *, n: int | None = None) -> Prompt:
    """Return the prompt for the answers after the first ``begun``.

    Its seed is another one: the same would give the same answers again.

    Args:
        prompt: asks for all of them.
        begun: how many there are.
        n: how many to ask for; by default all that are missing.
    """
    sampling = prompt.sampling
    seed = None if sampling.seed is None else sampling.seed + begun
    rest = replace(sampling, n=n or sampling.n - begun, seed=seed)
    return replace(prompt, sampling=rest)


def joined(calls: Sequence[Generation], *, prompts: int | None = None) -> Generation:
    """Return the answers of several calls as those of one.

    Args:
        calls: at least one.
        prompts: how many times the prompt was read; by default once a call.
    """
    if len(calls) == 1:
        return calls[0]
    first, *others = [choice for call in calls for choice in call.choices]
    read = [call.usage.prompt_tokens for call in calls][:prompts]
    written = [call.usage.completion_tokens for call in calls]
    usage = Usage(prompt_tokens=sum(read), completion_tokens=sum(written))
    alone = [replace(other, usage=Usage(), others=()) for other in others]
    return replace(first, usage=usage, others=tuple(alone), reply={}, usage_details={})
