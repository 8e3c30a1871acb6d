"""What our errors are in OpenAI's API: status, type, code, and whether to come again."""

import math
from collections.abc import Mapping
from typing import Any

from experts_registry.errors import (
    AbstainError,
    AccessError,
    BudgetError,
    CapacityError,
    ComposerError,
    ContentPolicyError,
    ContextLengthError,
    DatabaseError,
    ExpertBusyError,
    ExpertError,
    ExpertOverloadedError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    LimitError,
    OffersError,
    OptionError,
    PromptError,
    UnknownAnswerError,
    UnknownNameError,
)

__all__ = ["ApiError", "api_error", "overloaded", "unexpected"]

INVALID, SERVER = "invalid_request_error", "server_error"

# The first that fits counts: a subclass stands before its base.
_KINDS: tuple[tuple[type[ComposerError], tuple[int, str, str | None, str | None]], ...] = (
    (UnknownNameError, (404, INVALID, "model_not_found", None)),
    (UnknownAnswerError, (404, INVALID, "answer_not_found", "id")),
    (ContextLengthError, (400, INVALID, "context_length_exceeded", "messages")),
    (PromptError, (400, INVALID, "invalid_value", "messages")),
    (OptionError, (400, INVALID, "invalid_value", None)),
    (OffersError, (400, INVALID, "unsupported_parameter", None)),
    (BudgetError, (429, "insufficient_quota", "insufficient_quota", None)),
    (AbstainError, (422, INVALID, "abstained", None)),
    (ExpertTimeoutError, (504, "timeout_error", "timeout", None)),
    (ExpertOverloadedError, (503, SERVER, "overloaded", None)),
    (ExpertBusyError, (429, "requests", "rate_limit_exceeded", None)),
    (ExpertReplyError, (502, SERVER, "bad_reply", None)),
    (ContentPolicyError, (400, INVALID, "content_policy_violation", "messages")),
    (ExpertUnavailableError, (503, SERVER, "expert_unavailable", None)),
    (CapacityError, (503, SERVER, "overloaded", None)),
)
_SECONDS = 1.0  # when to come back where nobody named a time: every 503 says when


class ApiError(ComposerError):
    """An error as a client of OpenAI's API reads it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.kind = status, code, param, kind
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that says it."""
        said = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": said}


def api_error(error: ComposerError) -> ApiError:
    """Return an error of ours as one of the API."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, AccessError):
        return _refused(error)
    if isinstance(error, DatabaseError):
        return overloaded("a database of the server cannot be used now; try again")
    status, kind, code, param = _kind(error)
    headers = {}
    # The backend has tried again and the strategy has asked others: a client must not multiply it.
    if isinstance(error, ExpertError):
        headers["x-should-retry"] = "false"
    asked_for = error.retry_after if isinstance(error, ExpertBusyError) else None
    if asked_for is not None or status == 503:
        headers |= _come_again(_SECONDS if asked_for is None else asked_for)
    return ApiError(status, str(error), code=code, param=param, kind=kind, headers=headers)


def _refused(error: AccessError) -> ApiError:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    if isinstance(error, LimitError):
        # Soon there is room again, and a client does well to wait; beyond that it need not try.
        wait = error.retry_after
        headers |= {} if wait is None else _come_again(wait)
        headers["x-should-retry"] = "true" if wait is not None and wait <= 120 else "false"
    return ApiError(error.status, str(error), code=error.code, kind=error.type, headers=headers)


def _come_again(seconds: float) -> dict[str, str]:
    return {
        "retry-after": str(math.ceil(seconds)),
        "retry-after-ms": str(math.ceil(seconds * 1000)),
    }


def overloaded(what: str) -> ApiError:
    """Return the error for what may work in a moment, here or on another server."""
    headers = {**_come_again(_SECONDS), "x-should-retry": "true"}
    return ApiError(503, f"server: {what}", code="overloaded", kind=SERVER, headers=headers)


def unexpected() -> ApiError:
    """Return what a client learns of a mistake of ours: nothing that could hold a secret."""
    return ApiError(
        500,
        "server: an unexpected error; the server's log names it beside this x-request-id",
        kind=SERVER,
    )


def _kind(error: ComposerError) -> tuple[int, str, str | None, str | None]:
    if isinstance(error, ExpertRequestError) and not isinstance(error, ContentPolicyError):
        if error.is_callers_fault:
            return 400, INVALID, "expert_refused", None
        return 502, SERVER, "expert_refused", None
    return next((how for cls, how in _KINDS if isinstance(error, cls)), (500, SERVER, None, None))
