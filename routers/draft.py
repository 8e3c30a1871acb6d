"""How sure an expert is of the beginning of its answer: signals of a short draft.

Moskvoretskii et al., "Adaptive Retrieval Without Self-Knowledge? Bringing Uncertainty Back Home",
https://arxiv.org/abs/2501.12835: entropies and log-probabilities of the tokens tell about as much
as far dearer signals. They are read off the first `DRAFT_TOKENS` tokens.
"""

from collections.abc import Mapping, Sequence
from math import exp, log

from experts_registry.types import TokenLogprob

__all__ = ["DRAFT_TOKENS", "SIGNALS", "TOP_LOGPROBS", "draft_signals"]

DRAFT_TOKENS = 32
TOP_LOGPROBS = 20  # what OpenAI's protocol allows at most
SIGNALS = (
    "tokens",  # that the draft has
    "mean_logprob",
    "min_logprob",  # over tokens that hold a letter or a digit
    "first_logprob",
    "mean_entropy",  # nats, over the likeliest tokens that were told, renormalised
    "max_entropy",
)


def draft_signals(logprobs: Sequence[TokenLogprob] | None) -> Mapping[str, float] | None:
    """Return the `SIGNALS` of a draft, or None where the expert told no log-probabilities.

    An entropy is that of the `TOP_LOGPROBS` likeliest tokens; where only the chosen one is known,
    it is that of the chosen one against all others together.
    """
    draft = (logprobs or ())[:DRAFT_TOKENS]
    if not draft:
        return None
    values = [min(t.logprob, 0.0) for t in draft]
    words = [v for t, v in zip(draft, values, strict=True) if any(map(str.isalnum, t.token))]
    entropies = [_entropy(t) for t in draft]
    found = (
        float(len(draft)),
        sum(values) / len(values),
        min(words or values),
        values[0],
        sum(entropies) / len(entropies),
        max(entropies),
    )
    return dict(zip(SIGNALS, found, strict=True))


def _entropy(token: TokenLogprob) -> float:
    """Return -sum p log p in nats."""
    told = [exp(other.logprob) for other in token.top]
    if len(told) < 2:
        chosen = exp(min(token.logprob, 0.0))
        told = [chosen, 1 - chosen]
    total = sum(told)
    return -sum(p / total * log(p / total) for p in told if p > 0)
