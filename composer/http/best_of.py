"""``best_of``: draw more answers than are wanted, and keep those that are likeliest."""

from dataclasses import replace

from composer.http.fields import Body, bad, integer
from composer.trace import Answer
from experts_registry.backends.several import joined
from experts_registry.errors import ExpertReplyError
from experts_registry.types import Generation

__all__ = ["best", "candidates"]


def candidates(body: Body, n: int) -> int:
    """Return how many answers to draw for each prompt.

    Raises:
        ApiError: they are fewer than are wanted.
    """
    drawn = integer(body, "best_of", 0, 20) or n
    if drawn < n:
        raise bad("best_of", f"{drawn} is below n, {n}; draw at least as many as are wanted")
    return drawn


def best(answer: Answer, n: int, has_logprobs: bool) -> Answer:
    """Keep the ``n`` choices with the highest log-probability per token, best first.

    Usage stays that of all that were drawn.

    Args:
        answer: with all choices.
        n: how many to keep.
        has_logprobs: whether the client asked for log-probabilities, too.

    Raises:
        ExpertReplyError: the expert does not say how likely its answers are.
    """
    choices = answer.generation.choices
    if len(choices) <= n:
        return answer
    ranked = sorted(choices, key=lambda choice: -_likelihood(answer.expert, choice))[:n]
    if not has_logprobs:
        ranked = [replace(choice, logprobs=None) for choice in ranked]
    kept = replace(joined(ranked), usage=answer.generation.usage)
    return replace(answer, generation=kept, text=kept.text)


def _likelihood(expert: str, choice: Generation) -> float:
    if choice.logprobs is None:
        raise ExpertReplyError(
            f"expert {expert!r}: gave no log-probabilities, so that there is no best of its "
            "answers; leave best_of out, or ask another expert"
        )
    return sum(one.logprob for one in choice.logprobs) / max(1, len(choice.logprobs))
