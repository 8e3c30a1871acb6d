"""JSON answers from a local model: every token that would leave the format is ruled out.

The grammars are llguidance's; a schema with a keyword that they do not know is refused, so what
is accepted is kept to.
"""

import threading
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from experts_registry.backends.local_models import LoadedModel
from experts_registry.errors import OffersError
from experts_registry.schema import ExpertSpec

__all__ = ["Formats"]

_OBJECT = {"type": "object"}
# A weak model would fill an answer with spaces; this is enough to indent.
_RULES = {"whitespace_pattern": r"\n?[ \t]{0,16}", "lenient": False}


class Formats:
    """Compiles response formats for one model."""

    def __init__(self, spec: ExpertSpec, loaded: LoadedModel) -> None:
        self._where = f"expert {spec.name!r}"
        self._loaded = loaded
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def matcher(self, wanted: Any) -> LLMatcher | None:
        """Return what keeps one answer to ``response_format``; None where any text will do.

        Raises:
            OffersError: it is unknown, or not one that can be kept to.
        """
        schema = self._schema(wanted)
        if schema is None:
            return None
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_RULES)  # type: ignore[arg-type]
        except ValueError as error:  # a number of many digits
            raise self._refusal(str(error)) from None
        tokenizer = self._ready()
        is_wrong, why = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer)
        if is_wrong:
            raise self._refusal(why[0])
        return LLMatcher(tokenizer, grammar, log_level=0)

    def _refusal(self, why: str) -> OffersError:
        return OffersError(
            f"{self._where}: response_format.json_schema.schema: cannot be kept to: {why[:300]}; "
            "leave that out, or ask another expert",
            "response_format",
        )

    def _schema(self, wanted: Any) -> dict[str, Any] | None:
        kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
        if kind in (None, "text"):
            return None
        if kind == "json_object":
            return _OBJECT
        if kind != "json_schema":
            raise OffersError(
                f"{self._where}: response_format: its type is not one of text, json_object, "
                "json_schema",
                "response_format",
            )
        inner = wanted.get("json_schema")
        schema = inner.get("schema", {}) if isinstance(inner, Mapping) else None
        if not isinstance(schema, dict):
            raise OffersError(
                f"{self._where}: response_format.json_schema: has no schema; "
                "use {name: ..., schema: {...}}",
                "response_format",
            )
        return schema

    def _ready(self) -> LLTokenizer:
        with self._lock:  # it takes about a second, once
            if self._tokenizer is None:
                self._tokenizer = self._build()
            return self._tokenizer

    def _build(self) -> LLTokenizer:
        loaded = self._loaded
        size = max(len(loaded.tokenizer), loaded.model.config.get_text_config().vocab_size)
        try:
            return from_tokenizer(loaded.tokenizer, size, sorted(loaded.end_ids) or None)
        except ValueError as error:
            raise OffersError(
                f"{self._where}: response_format: its tokenizer allows no format but text: "
                f"{str(error)[:200]}; ask another expert",
                "response_format",
            ) from error
