"""One request: what it may cost, what it came to, and the charge and the log of that."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect

from composer.admission import Reservation
from composer.decision_log import Logged
from composer.decision_sums import HUNG_UP
from composer.estimates import most_read, most_written
from composer.evidence import Wish
from composer.http.access import Access
from composer.http.errors import api_error
from composer.keys import Key, is_token
from composer.router_names import NamedRouter
from composer.routing import AUTO
from composer.sdk import Composer
from composer.trace import Answer, Step, Trail
from experts_registry.errors import ComposerError, DataError, UnknownNameError
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from experts_registry.types import Prompt
from routers.draft import DRAFT_TOKENS

__all__ = ["Visit"]

logger = logging.getLogger(__name__)


@dataclass
class Visit:
    """One request: whose it is, what was set aside for it, and what it came to.

    Args:
        access: of the server.
        request_id: what the client is told.
        key: whose request it is; None where no key is needed.
        registry: the edition of the expert file that answers.
        answers: what was answered.
        trails: how far each of its prompts came, also those that failed.
        error: what ended it in place of an answer.
    """

    access: Access
    request_id: str
    key: Key | None
    registry: Registry
    began: float = field(default_factory=time.perf_counter)
    model: str = ""
    answers: list[Answer] = field(default_factory=list)
    trails: list[Trail] = field(default_factory=list)
    error: BaseException | None = None
    _reservation: Reservation | None = None

    async def reserve(
        self, composer: Composer, prompts: Sequence[Prompt], model: str, wish: Wish
    ) -> None:
        """Set aside the most that answering these prompts may use.

        Raises:
            AccessError: the key may not ask for this model, or a limit of it is reached.
        """
        granted = self._name(model)
        if self.key is None:
            return
        self.key.require_model(granted)  # before it is looked up: names are nobody's business
        specs = composer.candidates(model)
        more = composer.most_passages(model, wish), composer.most_drafts(model)
        calls = [_most(specs, composer.limited(prompt, model), *more) for prompt in prompts]
        self._reservation = await self.access.admission.areserve(
            self.key,
            model=granted,
            tokens=sum(tokens for tokens, _ in calls),
            usd=sum(usd for _, usd in calls),
        )

    def require_model(self, model: str) -> None:
        """Refuse a model that the key is not for, before any work is done.

        Raises:
            ForbiddenError: the key is not for it.
        """
        self._name(model)
        if self.key is not None:
            self.key.require_model(model)

    def admit(self, model: str) -> None:
        """Let a request pass that costs nothing; it counts among those of its minute.

        Raises:
            AccessError: the key may not ask for this model, or has asked too often.
        """
        granted = self._name(model)
        if self.key is not None:
            self.key.require_model(granted)
            self.count()

    def count(self) -> None:
        """Count a request that names no model among those of its minute.

        Raises:
            LimitError: the key has asked too often.
        """
        if self.key is not None:
            self.access.admission.rates.enter(self.key.id, 0, rpm=self.key.rpm, tpm=None)

    def _name(self, model: str) -> str:
        """Note what was asked for: a name of the file and nothing else, whatever clients send.

        Returns:
            the name by which the key may ask for it, where it may.
        """
        if is_token(model):
            raise UnknownNameError("model: is an API key; send it in the header, and a name here")
        registry = self.registry
        if model in registry.compositions or model in registry.experts or model == AUTO:
            self.model = model
            return model
        named = NamedRouter.find(model, registry)
        self.model = named.family if named else "(unknown)"
        if named is None or self.key is None:
            return model
        return next(filter(self.key.allows, (named.model, named.family)), model)

    def trail(self) -> Trail:
        """Begin the trail of one prompt."""
        self.trails.append(trail := Trail())
        return trail

    @property
    def steps(self) -> list[Step]:
        """Every call to an expert that was made for it."""
        return [step for trail in self.trails for step in trail.steps]

    @property
    def blamed(self) -> Trail | None:
        """The decision that stands for all where a request failed: one to blame, else the first."""
        trails = [trail for trail in self.trails if trail.decision is not None]
        failed = (t for t in trails if any(step.has_failed for step in t.steps))
        return next(failed, next(iter(trails), None))

    def require_admin(self) -> None:
        """Let an admin pass, and everybody where no key is needed.

        Raises:
            ForbiddenError: the key is not an admin's.
        """
        if self.key is not None:
            self.key.require_admin()

    def find(self, request_id: str) -> Logged | None:
        """Return a logged request of this caller; None where there is none, or it is another's.

        It reads a database: call it in a thread.
        """
        logged = self.access.log.get(request_id)
        if logged is None or self.key is None or self.key.is_admin:
            return logged
        return logged if logged.key_id == self.key.id else None

    async def end(self, error: BaseException | None) -> None:
        """Charge what was used, and log how it ended; a request that names no model is not."""
        self.error = error
        self._log(error)
        try:
            await self._charge()
        except DataError as refused:  # the client has its answer; what was set aside stays so
            logger.error("%s: is not charged: %s", self.request_id, refused)

    def _log(self, error: BaseException | None) -> None:
        if not self.model:
            return
        first = next((trail for trail in self.trails if trail.decision is not None), None)
        trail = (first if error is None else self.blamed) or Trail()
        ledger = trail.ledger
        self.access.log.add(
            Logged.ended(
                request_id=self.request_id,
                status=_status(error),
                model=self.model if ledger is None else ledger.model,
                steps=self.steps,
                error=error,
                key_id=self.key.id if self.key else "",
                expert=trail.expert,
                decision=trail.decision,
                seconds=time.perf_counter() - self.began,
                registry=self.registry.digest,
                generation=self.registry.generation,
                query=None if ledger is None else ledger.query,
            )
        )

    async def _charge(self) -> None:
        if self._reservation is None:
            return
        steps = self.steps
        tokens = sum(step.usage.total_tokens for step in steps)
        await self._reservation.asettle(tokens=tokens, usd=sum(step.cost for step in steps))


def _status(error: BaseException | None) -> int:
    if error is None:
        return 200
    if isinstance(error, ComposerError):
        return api_error(error).status
    is_gone = isinstance(error, ClientDisconnect | asyncio.CancelledError)
    return HUNG_UP if is_gone else 500


def _most(
    specs: Sequence[ExpertSpec], prompt: Prompt, passages: int, drafts: int
) -> tuple[int, float]:
    """Return the most tokens and USD that drafts and a call of any of these experts may take."""
    read, drafted = most_read(prompt), drafts * DRAFT_TOKENS
    calls = [
        (
            spec.price,
            (1 + drafts) * read + _fitting(spec, passages),
            most_written(spec, prompt) + drafted,
        )
        for spec in specs
    ]
    return (
        max(read + written for _, read, written in calls),
        max(price.cost(read, written) for price, read, written in calls),
    )


def _fitting(spec: ExpertSpec, passages: int) -> int:
    """Return how many tokens of passages there may be room for."""
    return passages if spec.context_window is None else min(passages, spec.context_window)
