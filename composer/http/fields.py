"""Checks of request fields, with OpenAI's error codes. ``null`` counts as left out."""

from collections.abc import Mapping
from typing import Any, TypeVar

from composer.http.errors import ApiError

__all__ = [
    "UNSUPPORTED",
    "Body",
    "bad",
    "choice",
    "decimal",
    "flag",
    "integer",
    "listed",
    "require",
    "stop_texts",
    "text",
    "token_lists",
]

Body = Mapping[str, Any]
UNSUPPORTED = "unsupported_parameter"
T = TypeVar("T")
N = TypeVar("N", bound=float)


def bad(param: str, what: str, code: str = "invalid_value") -> ApiError:
    """Build the error for a field."""
    return ApiError(400, f"{param}: {what}", code=code, param=param)


def require(body: Body, name: str) -> Any:
    """Return a field that must be there."""
    if body.get(name) is None:
        raise bad(name, "is missing; say it", "missing_required_parameter")
    return body[name]


def text(body: Body, name: str) -> str | None:
    """Return a text."""
    return _typed(body, name, str, "a string")


def choice(body: Body, name: str, usual: str, other: str) -> str:
    """Return one of two texts; the usual one where it was left out."""
    value = text(body, name)
    if value is None:
        return usual
    if value not in (usual, other):
        raise bad(name, f"is neither {usual} nor {other}; use one of them")
    return value


def flag(body: Body, name: str) -> bool:
    """Return a boolean; false where it was left out."""
    return bool(_typed(body, name, bool, "a boolean"))


def integer(body: Body, name: str, low: int | None = None, high: int | None = None) -> int | None:
    """Return a whole number in [low, high]."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # 16.0 is an integer, says JSON Schema
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, value, "an integer")
    return _within(name, value, low, high, "integer")


def decimal(body: Body, name: str, low: float, high: float) -> float | None:
    """Return a number in [low, high]."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong_type(name, value, "a number")
    return float(_within(name, value, low, high, "decimal"))


def listed(body: Body, name: str, most: int | None) -> list[Any]:
    """Return a list that must be there, of one to ``most`` items, or of any number."""
    value = require(body, name)
    if not isinstance(value, list):
        raise _wrong_type(name, value, "an array")
    if not value:
        raise bad(name, "is an empty array; give at least one item", "empty_array")
    if most is not None and len(value) > most:
        raise bad(name, f"has {len(value)} items; give at most {most}", "array_above_max_length")
    return value


def token_lists(name: str, items: list[Any]) -> list[list[int]]:
    """Return the token lists that a prompt or input is, one a text; none where it is texts."""
    lists = [items] if items and all(map(_is_token, items)) else items
    if not all(isinstance(tokens, list) for tokens in lists):
        return []
    for tokens in lists:
        if not tokens or not all(map(_is_token, tokens)):
            raise bad(name, "holds a list that is not of token ids; send texts", "invalid_type")
    return lists


def stop_texts(body: Body) -> tuple[str, ...]:
    """Return the strings that end an answer, at most four."""
    value = body.get("stop")
    if value is None or value == []:
        return ()
    if isinstance(value, str):
        return (value,)
    texts = listed(body, "stop", 4)
    for one in texts:
        if not isinstance(one, str):
            raise _wrong_type("stop", one, "a string or an array of strings")
    return tuple(texts)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _typed(body: Body, name: str, kind: type[T], what: str) -> T | None:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise _wrong_type(name, value, what)
    return value


def _wrong_type(name: str, value: Any, what: str) -> ApiError:
    return bad(name, f"is a {type(value).__name__}; use {what}", "invalid_type")


def _within(name: str, value: N, low: float | None, high: float | None, kind: str) -> N:
    if low is not None and value < low:
        raise bad(name, f"{value} is below {low}; use {low} or more", f"{kind}_below_min_value")
    if high is not None and value > high:
        raise bad(name, f"{value} is above {high}; use {high} or less", f"{kind}_above_max_value")
    return value
