"""The verb that searches stores, and how passages are shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, print_json, read_query, say

if TYPE_CHECKING:
    from composer.stores.retrieved import Retrieved
    from experts_registry.passages import Passage

__all__ = ["passage_table", "retrieve"]

_EXCERPT, _NAME = 72, 28  # characters


def retrieve(
    query: Annotated[str, typer.Argument(help="What to find; '-' reads it from standard input.")],
    registry: RegistryPath = Path("experts.yaml"),
    store: Annotated[
        str | None,
        typer.Option(help="Where; by default the store that fits the query best."),
    ] = None,
    retriever: Annotated[
        str | None,
        typer.Option(help="Who searches; by default whom the store's router chooses."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many passages.", min=1)] = 5,
    json: Json = False,
) -> None:
    """Search for passages, without asking an expert.

    Stores are built with 'expert-composer store build'. For example:

    expert-composer retrieve "When does the canteen open?" --store handbook -k 3
    """
    from composer.sdk import Composer

    with Composer.load(registry) as composer:
        found = composer.retrieve(read_query(query), k, store=store, retriever=retriever)
    if json:
        print_json(_found_json(found))
        return
    if found.passages:
        say(passage_table(found.passages))
    else:
        say(f"store {found.store} has nothing for it")
    say(f"\n{_searched(found)}")


def _searched(found: "Retrieved") -> str:
    """Say who searched, and why."""
    decision = found.decision
    said = f"{found.store}, searched by {' and '.join(decision.experts)}: {decision.reason}"
    scores = zip(decision.experts, decision.scores, strict=False)
    numbers = ", ".join(f"{name} {score:.3f}" for name, score in scores)
    return f"[{said}{f' ({numbers})' if numbers else ''} · {found.seconds * 1000:.0f} ms]"


def _found_json(found: "Retrieved") -> dict[str, Any]:
    from composer.explanation import decision_json

    return {
        "store": found.store,
        "passages": [vars(passage) for passage in found.passages],
        "decision": decision_json(found.decision),
        "similarity": list(found.similarity),
        "seconds": found.seconds,
    }


def passage_table(passages: "Sequence[Passage]") -> str:
    """Lay passages out, best first, numbered as answers cite them."""
    head = ("rank", "score", "id", "title", "text")
    rows = [head] + [
        (
            f"[{number}]",
            f"{passage.score:.3f}",
            _shown(passage.id, _NAME),
            _shown(passage.title, _NAME),
            _shown(passage.text, _EXCERPT),
        )
        for number, passage in enumerate(passages, start=1)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _shown(text: str, most: int) -> str:
    """Return the beginning of a text on one line, without what could drive a terminal."""
    line = " ".join(text[: 8 * most].split())
    line = "".join(c if c.isprintable() else "�" for c in line)
    return line if len(line) <= most else f"{line[: most - 3]}..."
