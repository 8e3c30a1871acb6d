"""What a request says of retrieval, and what an answer tells of its passages."""

from collections.abc import Mapping
from typing import Any

from composer.evidence import MODES, Mode, Wish
from composer.http.errors import ApiError
from composer.http.fields import Body, bad
from composer.keys import Key
from composer.trace import Answer
from experts_registry.errors import nearest
from experts_registry.passages import Passage
from experts_registry.registry import Registry

__all__ = ["known_store", "passage_json", "readable_stores", "retrieval_json", "wish_of"]

_USE = "auto, never, always, or {mode, store}"


def wish_of(body: Body, key: Key | None, registry: Registry) -> Wish:
    """Read the key ``retrieval``: a mode, or ``{mode, store}``, where store may be a list.

    Raises:
        ApiError: it is neither, or a store is not registered.
        ForbiddenError: the key may not read a store.
    """
    readable = None if key is None else key.readable
    value = body.get("retrieval")
    if value is None or isinstance(value, str):
        return Wish(mode=_mode(value), stores=readable)
    if not isinstance(value, Mapping):
        raise bad("retrieval", f"is a {type(value).__name__}; use {_USE}", "invalid_type")
    if unknown := [name for name in value if name not in ("mode", "store")]:
        raise bad("retrieval", f"{str(unknown[0])[:40]!r} is no key of it; use {_USE}")
    store = value.get("store")
    stores = readable if store is None else _stores(store, key, registry)
    return Wish(mode=_mode(value.get("mode")), stores=stores)


def _mode(value: Any) -> Mode | None:
    for mode in MODES:
        if value is None or value == mode:
            return value and mode
    raise bad("retrieval", f"is none of its modes; use {_USE}")


def _stores(value: Any, key: Key | None, registry: Registry) -> frozenset[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad("retrieval.store", "is no name and no list of names", "invalid_type")
    if not names:
        raise bad("retrieval.store", "names no store; name one, or leave it out", "empty_array")
    return frozenset(known_store("retrieval.store", name, key, registry) for name in names)


def known_store(param: str, name: str, key: Key | None, registry: Registry) -> str:
    """Return the name of a store that may be read.

    Raises:
        ForbiddenError: the key may not read it, whether it exists or not.
        ApiError: there is none of that name.
    """
    if key is not None:
        key.require_store(name)
    known = readable_stores(key, registry)
    if name not in known:
        raise ApiError(
            404,
            f"{param}: {name[:100]!r} is not one of {', '.join(known) or '(none)'}"
            f"{nearest(name, known)}",
            code="store_not_found",
            param=param,
        )
    return name


def readable_stores(key: Key | None, registry: Registry) -> list[str]:
    """Return the stores that a caller may read."""
    return [name for name in registry.stores if key is None or not key.stores or name in key.stores]


def passage_json(passage: Passage, index: int) -> dict[str, Any]:
    """Return a passage as JSON values; ``index`` is its number, which citations use."""
    return {
        "object": "passage",
        "index": index,
        "id": passage.id,
        "text": passage.text,
        "title": passage.title,
        "store": passage.store,
        "source": passage.source,
        "start": passage.start,
        "end": passage.end,
        "score": passage.score,
        "retrievers": list(passage.retrievers),
    }


def retrieval_json(answer: Answer) -> dict[str, Any]:
    """Return what was retrieved for an answer and where it is cited; empty where nobody asked."""
    found = answer.decision.retrieval
    if found is None:
        return {}
    return {
        "retrieval": {
            "store": found.store,
            "stage": found.stage,
            "reason": found.reason,
            "retrievers": list(found.retrievers),
            "passages": [passage_json(p, i) for i, p in enumerate(answer.passages, start=1)],
            "citations": [
                {"passage": one.passage, "start": one.start, "end": one.end}
                for one in answer.citations
            ],
        }
    }
