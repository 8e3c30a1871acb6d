"""Grade a response by program: 0 is wrong, 1 is right.

A grader is a value that can stand in a query file; `grade` applies it. All but ``code`` and
``regex``, which run in the sandbox, are pure functions of the response. Texts are compared after
NFKC and case folding, in any script.
"""

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self, get_args
from warnings import catch_warnings

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from composer.answers import choice_of, code_of, fold, holds, last_number, normal, tokens
from composer.sandbox import run_code
from experts_registry.errors import DataError, nearest

__all__ = [
    "F1",
    "Choice",
    "Code",
    "Contains",
    "Exact",
    "Grader",
    "Numeric",
    "Regex",
    "grade",
    "grader_keys",
    "read_grader",
]


def _as_text(value: Any) -> Any:
    """Let a file say ``42`` where it means ``"42"``."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_number(value: Any) -> Any:
    """Let a file say ``"1,234"`` where it means ``1234``; a boolean is no number."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    number = last_number(value) if isinstance(value, str) else None
    return value if number is None else number


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), BeforeValidator(_as_text)
]
Answers = Annotated[tuple[Text, ...], Field(min_length=1)]

_REGEX_SECONDS = 2.0


class _Grader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Exact(_Grader):
    """The response is one of the answers, but for case, punctuation, articles and spacing."""

    type: Literal["exact"] = "exact"
    answers: Answers

    def score(self, response: str) -> float:
        """Compare normalised texts."""
        return float(normal(response) in map(normal, self.answers))


class Numeric(_Grader):
    r"""The last number of the response, or the one in ``#### 42`` or ``\boxed{42}``, is right."""

    type: Literal["numeric"] = "numeric"
    answer: Annotated[float, BeforeValidator(_as_number)]
    tolerance: float = Field(default=1e-6, ge=0)

    def score(self, response: str) -> float:
        """Compare with an absolute tolerance."""
        number = last_number(response)
        return float(number is not None and abs(number - self.answer) <= self.tolerance)


class Contains(_Grader):
    """The response holds one of the answers, or all of them, as whole words."""

    type: Literal["contains"] = "contains"
    answers: Answers
    all: bool = False

    def score(self, response: str) -> float:
        """Search the folded text; punctuation counts."""
        text = fold(response)
        found = (holds(text, fold(answer)) for answer in self.answers)
        return float(all(found) if self.all else any(found))


class Regex(_Grader):
    """The pattern is found in the response; flags are letters of ``aimsx``."""

    type: Literal["regex"] = "regex"
    pattern: Annotated[str, Field(min_length=1)]
    flags: str = ""

    @field_validator("flags")
    @classmethod
    def _known(cls, flags: str) -> str:
        if unknown := set(flags) - set("aimsx"):
            raise ValueError(f"{''.join(sorted(unknown))!r} are not flags; use letters of 'aimsx'")
        return flags

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            with catch_warnings(action="ignore"):
                re.compile(self.pattern, self._flags)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from None
        return self

    @property
    def _flags(self) -> int:
        return sum({getattr(re, letter.upper()) for letter in self.flags})

    def score(self, response: str) -> float:
        """Search in the sandbox: a pattern can take years, and nothing stops it in a thread.

        Raises:
            DataError: the search took too long.
        """
        search = f"re.search({self.pattern!a}, {response!a}, {self._flags})"
        outcome = run_code(f"import re\nprint({search} is not None)", seconds=_REGEX_SECONDS)
        if not outcome.ok:
            raise DataError(
                f"grader.pattern: {self.pattern!r} {outcome.reason}; "
                "write one that does not backtrack"
            )
        return float(outcome.stdout_tail.strip() == "True")


class Choice(_Grader):
    """The response picks the right one of some labels."""

    type: Literal["choice"] = "choice"
    answer: Text
    choices: Annotated[tuple[Text, ...], Field(min_length=2)] = ("A", "B", "C", "D")

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.answer not in self.choices:
            raise ValueError(f"{self.answer!r} is not one of the choices {', '.join(self.choices)}")
        return self

    def score(self, response: str) -> float:
        """Compare the label that the response picks."""
        return float(choice_of(response, self.choices) == self.answer)


class F1(_Grader):
    """How many words the response shares with the best of the answers.

    Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text,
    https://arxiv.org/abs/1606.05250: harmonic mean of token precision and recall.
    """

    type: Literal["f1"] = "f1"
    answers: Answers

    def score(self, response: str) -> float:
        """Return the best F1 over the answers."""
        return max(_f1(tokens(response), tokens(answer)) for answer in self.answers)


class Code(_Grader):
    """The tests pass when they run after the code of the response.

    ``entry`` names what the answer must define: it picks among several code blocks.
    """

    type: Literal["code"] = "code"
    tests: Text
    entry: str | None = None
    seconds: float = Field(default=5.0, gt=0, le=600)
    memory_mb: int = Field(default=512, ge=64)

    @field_validator("tests")
    @classmethod
    def _parse(cls, tests: str) -> str:
        try:
            with catch_warnings(action="ignore"):
                compile(tests, "tests", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"are not Python: {error}") from None
        return tests

    def score(self, response: str) -> float:
        """Run answer and tests in the sandbox."""
        source = f"{code_of(response, self.entry)}\n\n{self.tests}\n"
        return float(run_code(source, seconds=self.seconds, memory_mb=self.memory_mb).ok)


Grader = Annotated[
    Exact | Numeric | Contains | Regex | Choice | F1 | Code, Field(discriminator="type")
]

_ADAPTER: TypeAdapter[Grader] = TypeAdapter(Grader)
_CLASSES: dict[str, type[_Grader]] = {
    cls.model_fields["type"].default: cls for cls in get_args(get_args(Grader)[0])
}


def grade(grader: Grader, response: str) -> float:
    """Return the quality of a response, in [0, 1].

    Raises:
        DataError: a regular expression took too long.
        CapacityError: the sandbox could not start.
    """
    return grader.score(response) if response.strip() else 0.0


def read_grader(value: Any) -> Grader:
    """Read a grader from its JSON form.

    Raises:
        DataError: the type or a key is unknown, or a value is wrong; names the nearest.
    """
    if not isinstance(value, dict):
        raise DataError(f'grader: {value!r} is not an object; write {{"type": "exact", ...}}')
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _CLASSES:
        hint = nearest(str(kind), _CLASSES)
        raise DataError(f"grader.type: {kind!r} is not one of {', '.join(_CLASSES)}{hint}")
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        raise DataError(_complaint(error, _CLASSES[kind])) from None


def grader_keys(kind: str) -> tuple[str, ...]:
    """Return the keys of a type of grader; none where there is no such type."""
    return tuple(_CLASSES[kind].model_fields) if kind in _CLASSES else ()


def _complaint(error: ValidationError, cls: type[_Grader]) -> str:
    """Say the first problem in the words of the file."""
    # A misspelt key is also a missing one: the misspelling is what to say.
    problems = sorted(error.errors(include_url=False), key=lambda e: e["type"] == "missing")
    first = problems[0]
    where = ".".join(("grader", *map(str, first["loc"][1:])))
    keys = tuple(cls.model_fields)
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"{where}: is not a key of this grader; it has {', '.join(keys)}{nearest(key, keys)}"
    if first["type"] == "missing":
        return f"{where}: is missing; this grader has {', '.join(keys)}"
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what.replace('valid tuple', 'valid list')}"


def _f1(given: list[str], wanted: list[str]) -> float:
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0
