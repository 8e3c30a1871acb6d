"""Ask an expert for the beginning of an answer, so that a gate sees how sure it is of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from composer.deadlines import deadline
from composer.dispatch import Dispatcher
from composer.handouts import Handout
from composer.standing import Standings
from composer.trace import Ledger, Trail
from experts_registry.errors import ComposerError
from experts_registry.types import Prompt, TokenLogprob
from routers.draft import DRAFT_TOKENS, TOP_LOGPROBS

__all__ = ["Drafting"]


@dataclass(frozen=True)
class Drafting:
    """Drafts for one request; each is a step of its bill.

    Args:
        prompt: what is asked.
        ledger: where the calls are written down.
        trail: is told of the ledger, as a draft is paid for also where no answer comes of it.
        dispatcher: carries calls.
        standings: what is known of the experts.
        seconds: the longest wait for one.
    """

    prompt: Prompt
    ledger: Ledger
    trail: Trail | None
    dispatcher: Dispatcher
    standings: Standings
    seconds: float

    async def __call__(self, expert: str) -> Sequence[TokenLogprob] | None:
        """Return the tokens of a draft; None where the expert tells none, or fails."""
        standing = self.standings[expert]
        if standing.spec.offers and "logprobs" not in standing.spec.offers:
            return None
        if self.trail is not None:
            self.trail.ledger = self.ledger
        handout, began = Handout(prompt=self._short()), time.perf_counter()
        try:
            with standing.call():
                async with deadline(f"expert {expert!r}", self.seconds, of="draft"):
                    generation = await self.dispatcher.generate(expert, handout.prompt)
        except ComposerError as error:
            self.ledger.failed(expert, began, error)
            return None
        except BaseException as error:  # stopped from our side, and charged for by theirs
            self.ledger.failed(expert, began, error, begun=handout.prompt)
            raise
        self.ledger.answered(expert, began, handout, generation)
        return generation.logprobs

    def _short(self) -> Prompt:
        """Return the prompt for a greedy beginning of one answer."""
        limit = self.prompt.sampling.max_tokens
        sampling = replace(
            self.prompt.sampling,
            max_tokens=DRAFT_TOKENS if limit is None else min(limit, DRAFT_TOKENS),
            temperature=0.0,
            logprobs=True,
            top_logprobs=TOP_LOGPROBS,
            n=1,
        )
        return replace(self.prompt, sampling=sampling)
