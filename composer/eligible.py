"""Which experts may be asked a prompt, and what that is expected to cost."""

from collections.abc import Mapping

from composer.estimates import CHARACTERS_PER_TOKEN
from experts_registry.errors import ComposerError, ContextLengthError, OffersError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Prompt

__all__ = ["exclusions", "expected_cost", "refusal", "why_not"]

_MOST_CHARACTERS_PER_TOKEN = 12  # above it no tokenizer fits the text: refuse before reading it
_EXPECTED_ANSWER_TOKENS = 256


def exclusions(
    specs: Mapping[str, ExpertSpec],
    prompt: Prompt,
    *,
    usd: float | None = None,
    sent: Prompt | None = None,
    avoid: Mapping[str, str],
) -> dict[str, str]:
    """Return who may not be asked, and why.

    Args:
        specs: who could be.
        prompt: what is asked.
        usd: the most that a call may be expected to cost.
        sent: what is paid for, where passages come before the question.
        avoid: counts only where somebody else is left.
    """
    excluded = {n: why for n, spec in specs.items() if (why := why_not(spec, prompt, usd, sent))}
    avoided = {n: why for n, why in avoid.items() if n in specs and n not in excluded}
    return excluded | avoided if len(excluded) + len(avoided) < len(specs) else excluded


def why_not(
    spec: ExpertSpec, prompt: Prompt, usd: float | None = None, sent: Prompt | None = None
) -> str | None:
    """Say why an expert may not be asked, or None; arguments are those of `exclusions`."""
    size = sum(len(message.content) for message in prompt.messages)
    if spec.context_window is not None and size > spec.context_window * _MOST_CHARACTERS_PER_TOKEN:
        return f"{size} characters do not fit its context window of {spec.context_window} tokens"
    if prompt.sampling.logprobs and spec.offers and "logprobs" not in spec.offers:
        return "does not offer logprobs"
    if usd is not None:
        cost = expected_cost(spec, sent or prompt)
        if cost > usd:
            return f"expected to cost ${cost:.3g}, above the limit of ${usd:.3g}"
    return None


def expected_cost(spec: ExpertSpec, prompt: Prompt) -> float:
    """Estimate the price of a call in USD before it is made."""
    size = sum(len(message.content) for message in prompt.messages)
    answer = prompt.sampling.max_tokens or spec.limits.max_tokens or _EXPECTED_ANSWER_TOKENS
    return spec.price.cost(size / CHARACTERS_PER_TOKEN, answer * prompt.sampling.n)


def refusal(excluded: Mapping[str, str]) -> ComposerError:
    """Return the error that fits why nobody may be asked."""
    listed = "; ".join(f"{name}: {why}" for name, why in excluded.items())
    is_too_long = all("context window" in why for why in excluded.values())
    said = f"query: no expert may be asked ({listed})"
    if is_too_long:
        return ContextLengthError(said)
    is_logprobs = all("logprobs" in why for why in excluded.values())
    return OffersError(said, "logprobs" if is_logprobs else None)
