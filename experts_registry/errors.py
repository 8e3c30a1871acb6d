"""The whole tree of exceptions.

    ComposerError                     everything this project raises on purpose
    ├── RegistryError                 the expert file: syntax, unknown keys, references, edits
    │   └── UnknownNameError          a name that is not registered; offers the nearest one
    ├── ModelSourceError              a model that cannot be found, verified or converted
    ├── OptionError                   a hyperparameter, option or argument out of its range
    ├── PluginError                   a router, backend, strategy or grader that cannot be loaded
    ├── DataError                     outcomes, query files, artefacts
    │   ├── DatabaseError             keys, decisions or feedback: locked, full, damaged, away
    │   ├── ArtefactError             a saved router or store that does not fit what it is used with
    │   └── UnknownAnswerError        feedback on an answer that nobody remembers
    ├── AbstainError                 no expert is expected to do well enough
    ├── BudgetError                   no assignment fits the stated budget
    ├── PromptError                   a query no expert could be asked
    │   └── ContextLengthError        longer than the expert's context window
    ├── AccessError                   a request that may not be made; knows its HTTP status and code
    │   ├── KeyRefusedError           the API key is unknown, expired or revoked (401)
    │   ├── ForbiddenError            the key is good, but not for this model or verb (403)
    │   └── LimitError                a rate or budget is used up (429); which, and for how long
    ├── OffersError                   asked an expert for something it does not offer
    ├── ExpertError                   a call to an expert failed
    │   ├── ExpertTimeoutError        no answer before the deadline
    │   ├── ExpertBusyError           asked to come back later (429); knows when
    │   │   └── ExpertOverloadedError     has no room now, or failed too often lately (503)
    │   ├── ExpertUnavailableError    refused, unreachable, died; another expert may be asked
    │   ├── ExpertReplyError          answered with something that is not an answer
    │   └── ExpertRequestError        refused the request itself (400, 401, 404 ...)
    │       └── ContentPolicyError        its content filter refused
    └── CapacityError                 the machine or cluster cannot host the experts

A message reads ``where: what is wrong; what would be right``. Every argument goes to
``super().__init__`` because an exception is pickled between workers and rebuilt from ``args``.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AbstainError",
    "AccessError",
    "ArtefactError",
    "BudgetError",
    "CapacityError",
    "ComposerError",
    "ContentPolicyError",
    "ContextLengthError",
    "DataError",
    "DatabaseError",
    "ExpertBusyError",
    "ExpertError",
    "ExpertOverloadedError",
    "ExpertReplyError",
    "ExpertRequestError",
    "ExpertTimeoutError",
    "ExpertUnavailableError",
    "ForbiddenError",
    "KeyRefusedError",
    "LimitError",
    "ModelSourceError",
    "OffersError",
    "OptionError",
    "PluginError",
    "PromptError",
    "RegistryError",
    "UnknownAnswerError",
    "UnknownNameError",
    "named",
    "nearest",
    "unknown_name",
]

_QUOTED = 128  # characters of a name in an error


class ComposerError(Exception):
    """Everything this project raises on purpose.

    ``unopened`` is the expert that could not be opened, where that is why. ``public`` is what a
    client of a server may read where the message is for the operator.
    """

    unopened: str | None = None
    public: str | None = None


class RegistryError(ComposerError):
    """The expert file is wrong; the message names file, line and key."""


class UnknownNameError(RegistryError):
    """A name that is not registered."""


class ModelSourceError(ComposerError):
    """A model cannot be found, verified or converted."""


class OptionError(ComposerError):
    """A hyperparameter, option or argument is out of its range."""


class PluginError(ComposerError):
    """A router, backend, strategy or grader cannot be loaded."""


class DataError(ComposerError):
    """Outcomes, a query file or an artefact cannot be used."""


class DatabaseError(DataError):
    """A database cannot be used now; the message, which names it, is for the operator alone."""


class ArtefactError(DataError):
    """A saved artefact does not fit what it is used with."""


class UnknownAnswerError(DataError):
    """Feedback is about an answer that nobody remembers."""


class AbstainError(ComposerError):
    """No expert is expected to do well enough to be asked."""


class BudgetError(ComposerError):
    """No assignment fits the stated budget."""


class PromptError(ComposerError):
    """A query no expert could be asked."""


class ContextLengthError(PromptError):
    """The prompt is longer than the expert's context window."""


class AccessError(ComposerError):
    """A request may not be made; the HTTP door answers with these, in OpenAI's words."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"


class KeyRefusedError(AccessError):
    """The API key is unknown, wrong, expired or revoked: one text for all, a client learns no more.

    It takes no argument and so cannot carry a token anywhere.
    """

    status = 401
    code = "invalid_api_key"

    def __str__(self) -> str:
        return "API key: is missing, unknown, expired or revoked; ask the operator for a valid one"


class ForbiddenError(AccessError):
    """The key is good, but not for this."""

    code = "permission_denied"


class LimitError(AccessError):
    """A limit of the key is used up.

    Args:
        message: what a client may read.
        limit: ``requests`` or ``tokens`` (a minute), or ``usd``.
        retry_after: seconds until there may be room; None where waiting does not help.
    """

    status = 429

    def __init__(self, message: str, limit: str, retry_after: float | None = None) -> None:
        super().__init__(message, limit, retry_after)
        self.limit, self.retry_after = limit, retry_after
        is_budget = limit == "usd"
        self.type = "insufficient_quota" if is_budget else limit
        self.code = "insufficient_quota" if is_budget else "rate_limit_exceeded"

    def __str__(self) -> str:
        return str(self.args[0])


class OffersError(ComposerError):
    """An expert was asked for something it does not offer; ``param`` is the request's key."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.param = param

    def __str__(self) -> str:
        return str(self.args[0])


class ExpertError(ComposerError):
    """A call to an expert failed."""


class ExpertTimeoutError(ExpertError):
    """No answer before the deadline."""


class ExpertBusyError(ExpertError):
    """An expert asked us to come back later; ``retry_after`` is in seconds, if it said."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class ExpertOverloadedError(ExpertBusyError):
    """An expert has no room for this call, or failed so often that it is left alone for a while."""


class ExpertUnavailableError(ExpertError):
    """An expert is unreachable or its worker died; another expert may be asked."""


class ExpertReplyError(ExpertError):
    """An expert answered with something that is not an answer."""


class ExpertRequestError(ExpertError):
    """An expert refused the request itself.

    Args:
        message: what it said.
        status: the HTTP status, if there was one.
        param: the key of the request that it blames.
        code: its own word for it.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, status, param, code)
        self.status, self.param, self.code = status, param, code

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def is_callers_fault(self) -> bool:
        """Whether the request is to blame; otherwise it is the key, the address or the name."""
        return self.status is None or self.status in (400, 409, 413, 422)


class ContentPolicyError(ExpertRequestError):
    """An expert's content filter refused the request."""


class CapacityError(ComposerError):
    """The machine or cluster cannot host the experts."""


def named(text: str) -> str:
    """Quote a name that somebody sent, which may be of any length."""
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known name, or an empty string."""
    if len(name) > _QUOTED:
        return ""
    match = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the one error for a name that is not registered."""
    names = sorted(known)
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UnknownNameError(
        f"{what} {named(name)} is not one of {listed or '(none)'}{nearest(name, names)}"
    )
