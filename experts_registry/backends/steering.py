"""What moves a row's logits before its next token is chosen: biases, penalties, a grammar."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from llguidance import LLMatcher

from experts_registry.backends.requested import biases
from experts_registry.errors import OptionError

__all__ = ["Steering", "steering_of"]


@dataclass(eq=False)
class Steering:
    """OpenAI's biases and penalties, and a grammar, over the tokens of one answer.

    Args:
        bias: added to the logits of these tokens.
        frequency_penalty: taken from a token's logit each time that it was chosen.
        presence_penalty: taken once from the logit of a token that was chosen.
        matcher: rules out tokens that would leave a format.
    """

    bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    matcher: LLMatcher | None = None
    _counts: Counter[int] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether the format allows nothing more."""
        return self.matcher is not None and self.matcher.is_stopped()

    @property
    def is_broken(self) -> bool:
        """Whether the format cannot be kept to any longer."""
        return self.matcher is not None and self.matcher.is_error()

    def moved(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits (vocabulary,) of the next token, as they should be."""
        logits = logits.float().clone()
        if self.bias:
            _add(logits, self.bias)
        if self._counts and (self.frequency_penalty or self.presence_penalty):
            less = {
                token: -self.frequency_penalty * count - self.presence_penalty
                for token, count in self._counts.items()
            }
            _add(logits, less)
        if self.matcher is not None:
            allowed = torch.frombuffer(
                bytearray(self.matcher.compute_logit_bias()), dtype=torch.uint8
            )
            is_out = allowed[: len(logits)].to(logits.device) == 0
            logits = logits.masked_fill(is_out, -torch.inf)
        return logits

    def take(self, token: int) -> None:
        """Note what was chosen."""
        self._counts[token] += 1
        if self.matcher is not None:
            self.matcher.consume_token(token)


def _add(logits: torch.Tensor, values: Mapping[int, float]) -> None:
    index = torch.tensor([*values], device=logits.device)
    logits[index] += torch.tensor([*values.values()], device=logits.device)


def steering_of(
    extra: Mapping[str, Any], matcher: LLMatcher | None, vocabulary: int
) -> Steering | None:
    """Read the keys of a request; None where there is nothing to do.

    Raises:
        OptionError: a bias or penalty is none.
    """
    steering = Steering(
        _bias(extra, vocabulary),
        _penalty(extra, "frequency_penalty"),
        _penalty(extra, "presence_penalty"),
        matcher,
    )
    is_needed = steering.bias or steering.frequency_penalty or steering.presence_penalty
    return steering if is_needed or matcher else None


def _penalty(extra: Mapping[str, Any], name: str) -> float:
    value = extra.get(name) or 0.0
    if not isinstance(value, int | float) or not -2 <= value <= 2:
        raise OptionError(f"{name}: {value!r:.40} is not in [-2, 2]")
    return float(value)


def _bias(extra: Mapping[str, Any], vocabulary: int) -> dict[int, float]:
    found = biases(extra)
    for token in found:
        if token >= vocabulary:
            raise OptionError(
                f"logit_bias: {token} is no token id of this expert; use 0 to {vocabulary - 1}"
            )
    return found
