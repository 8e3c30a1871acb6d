"""Read a query file: what to ask, and how to grade what comes back.

JSON Lines, plain or gzipped; one object a line::

    {"id": "sum-1", "category": "math", "query": "What is 19 + 23?",
     "grader": {"type": "numeric", "answer": 42}, "max_tokens": 64}

``id`` (by default a hash of the text), ``category`` and ``max_tokens`` may be left out,
``messages`` in OpenAI's shape may stand for ``query``, and ``"answer": 42, "grader": "numeric"``
for the grader object.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composer.graders import Grader, grader_keys, read_grader
from composer.json_lines import json_object, numbered_lines
from experts_registry.errors import ComposerError, DataError, nearest
from experts_registry.types import Prompt

__all__ = ["Query", "read_queries"]

_KEYS = ("id", "query", "messages", "category", "grader", "answer", "max_tokens")
_MAX_PROBLEMS = 20
_HINT = 'write one JSON object a line, {"query": ..., "grader": {...}}'


@dataclass(frozen=True, kw_only=True)
class Query:
    """One thing to ask every expert.

    Args:
        id: unique in its file.
        prompt: the conversation, with ``max_tokens`` where the file gives it.
        grader: turns a response into a quality.
        category: a label, or an empty string.
    """

    id: str
    prompt: Prompt
    grader: Grader
    category: str = ""


def read_queries(path: str | Path) -> tuple[Query, ...]:
    """Read a query file.

    Raises:
        DataError: it is missing, empty or wrong; one line per mistake, each with its line number.
    """
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in numbered_lines(Path(path), "name a JSONL file of queries"):
        try:
            query = _query(line)
            if query.id in queries:
                raise DataError(
                    f"id: {query.id!r} is on line {lines[query.id]} too; give each its own"
                )
            queries[query.id], lines[query.id] = query, number
        except ComposerError as error:
            problems.append(f"{path}:{number}: {error}")
            if len(problems) == _MAX_PROBLEMS:
                break
    if problems:
        raise DataError("\n".join(problems))
    if not queries:
        raise DataError(f"{path}: holds no query; {_HINT}")
    return tuple(queries.values())


def _query(line: bytes) -> Query:
    row = json_object(line, _HINT)
    for key in row:
        if key not in _KEYS:
            raise DataError(f"{key}: is not one of {', '.join(_KEYS)}{nearest(key, _KEYS)}")
    prompt = _prompt(row)
    return Query(
        id=_id(row.get("id"), prompt),
        prompt=prompt,
        grader=_grader(row),
        category=_category(row.get("category")),
    )


def _prompt(row: Mapping[str, Any]) -> Prompt:
    if ("query" in row) == ("messages" in row):
        raise DataError("query: give either 'query' (a text) or 'messages' (a conversation)")
    asked = row.get("query", row.get("messages"))
    if "query" in row and not isinstance(asked, str):
        raise DataError(f"query: {asked!r} is not text; quote it")
    if "messages" in row and not (
        isinstance(asked, list) and all(isinstance(message, dict) for message in asked)
    ):
        raise DataError('messages: is not a list of {"role": ..., "content": ...} objects')
    most = row.get("max_tokens")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool)):
        raise DataError(f"max_tokens: {most!r} is not a whole number; use 1 or more")
    return Prompt.of(asked, max_tokens=most)


def _id(value: Any, prompt: Prompt) -> str:
    if value is None:
        turns = [(m.role, m.content) for m in prompt.messages]
        return hashlib.sha256(json.dumps(turns).encode()).hexdigest()[:16]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"id: {value!r} is not a name; use a text, or leave it out")
    return value


def _category(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise DataError(f"category: {value!r} is not text; quote it")
    return value or ""


def _grader(row: Mapping[str, Any]) -> Grader:
    """Read the grader object, or the short form: its type beside the answer."""
    if "grader" not in row:
        raise DataError('grader: is missing; add {"type": "exact", "answers": ["..."]}')
    grader = row["grader"]
    if "answer" not in row:
        return read_grader({"type": grader} if isinstance(grader, str) else grader)
    if not isinstance(grader, str):
        raise DataError("answer: stands beside a whole grader; put it into the grader")
    answer = row["answer"]
    if "answers" in grader_keys(grader):
        return read_grader(
            {"type": grader, "answers": answer if isinstance(answer, list) else [answer]}
        )
    return read_grader({"type": grader, "answer": answer})
