"""Ask experts for one request: another one where one fails, and the last one again."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass

from composer.chain import Chain
from composer.deadlines import deadline
from composer.dispatch import Dispatcher
from composer.handouts import Handout, Handouts
from composer.plan import Plan
from composer.standing import Standings
from composer.trace import Ledger
from experts_registry.errors import ComposerError, ContextLengthError
from experts_registry.types import Generation, Prompt

__all__ = ["Calling", "Pieces"]

logger = logging.getLogger(__name__)

_SHARE, _LAST_SHARE = 0.5, 0.99  # of the time that is left


@dataclass
class Pieces:
    """How far one call has come: whether it has given pieces of an answer, or all of it."""

    _answers: Callable[[], None]
    has_begun: bool = False
    is_complete: bool = False

    def add(self) -> None:
        """Note a piece: the expert is there."""
        self._answers()
        self.has_begun = True


class Calling:
    """The calls of one request, within its deadline.

    Args:
        plan: what was decided.
        ledger: where every try is written down.
        dispatcher: carries calls.
        standings: what is known of the experts.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, dispatcher: Dispatcher, standings: Standings
    ) -> None:
        self.ledger, self.dispatcher, self.standings = ledger, dispatcher, standings
        self._plan = plan
        self.chain = Chain(plan.decision, plan.fallbacks, standings)
        self._handouts = Handouts(plan.passages)
        self._given: dict[str, int] = {}  # passages of an expert's last call
        self._tries: dict[str, int] = {}
        self._let_in: set[str] = set()

    async def __call__(self, expert: str, prompt: Prompt) -> Generation:
        """Answer a prompt with an expert, or with one that stands in for it.

        Raises:
            ExpertError: all that could be asked failed; this is how the last one did.
        """
        while True:
            began = self.begin(expert)
            handout = self.handout(expert, prompt)
            try:
                with self.call(expert, handout, began):
                    async with self.within(expert):
                        generation = await self.dispatcher.generate(expert, handout.prompt)
            except ComposerError as error:
                expert = await self.next(expert, error)
                continue
            generation = self.ledger.answered(expert, began, handout, generation)
            other = None
            if generation.finish_reason == "content_filter":
                other = self.chain.after_filter()
            if other is None:
                return generation
            expert = other

    def begin(self, expert: str) -> float:
        """Note a try, and return when it began, in `time.perf_counter` seconds."""
        self.chain.ask(expert)
        self._tries[expert] = self._tries.get(expert, 0) + 1
        return time.perf_counter()

    def handout(self, expert: str, prompt: Prompt) -> Handout:
        """Return what an expert is sent: the prompt, after the passages that it has room for."""
        handout = self._handouts.of(self.standings[expert].spec, prompt)
        self._given[expert] = len(handout.passages)
        return handout

    @contextmanager
    def call(self, expert: str, handout: Handout, began: float) -> Iterator[Pieces]:
        """Count a call while it lasts, and note how it fails; errors as of `Standing.call`.

        Where the expert is not let in, there is no call and nothing to note. One that is stopped,
        or breaks after its first piece, may be charged for by the expert, who does not say so.
        """
        with self.standings[expert].call() as answers:
            self._let_in.add(expert)
            pieces = Pieces(answers)
            try:
                yield pieces
            except BaseException as error:
                is_charged = pieces.has_begun or not isinstance(error, ComposerError)
                if not pieces.is_complete:
                    begun, given = handout.prompt if is_charged else None, len(handout.passages)
                    self.ledger.failed(expert, began, error, begun=begun, passages=given)
                raise

    def within(
        self, expert: str, *, most: float | None = None, of: str = "answer"
    ) -> AbstractAsyncContextManager[None]:
        """Bound a try: by half of what is left of the request while others could be asked.

        The last one has a little less than all of it: then its silence is held against it.

        Args:
            expert: who is asked.
            most: seconds of the expert's own for this.
            of: what is waited for.
        """
        plan = self._plan
        share = plan.left * (_LAST_SHARE if self.chain.is_over else _SHARE)
        if most is not None and most < share:
            return deadline(f"expert {expert!r}", most, of=of)
        if self.chain.is_over:
            return deadline(plan.who, plan.seconds, left=share, of=of)
        return deadline(f"expert {expert!r}", share, of=of)

    async def next(self, expert: str, error: ComposerError) -> str:
        """Return whom to ask after a failure, at the time to ask.

        Raises:
            ComposerError: the same, where nobody could help.
        """
        # Without its text: an upstream may repeat the prompt in it.
        kind = type(error).__name__
        is_too_long, given = isinstance(error, ContextLengthError), self._given.get(expert, 0)
        if is_too_long and self._handouts.shorten(expert, given):
            logger.warning("expert %s has no room for %d passages, asking with less", expert, given)
            return expert
        if (other := self.chain.after(error)) is not None:
            logger.warning("expert %s failed (%s), asking %s", expert, kind, other)
            logger.debug("expert %s: %s", expert, error)
            return other
        if expert not in self._let_in:
            raise error  # it has no room: to wait here would be a queue without an end
        retries = self.standings[expert].retries
        wait = retries.wait(error, self._tries[expert], self._plan.left)
        if wait is None:
            raise error
        logger.warning("expert %s failed (%s), asking it again in %.2f s", expert, kind, wait)
        await asyncio.sleep(wait)
        return expert
