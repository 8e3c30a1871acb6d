"""Verbs that ask: route, ask, chat."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from composer.cli.output import (
    Json,
    RegistryPath,
    Workers,
    error_json,
    print_json,
    read_query,
    say,
)
from composer.cli.retrieve import passage_table

if TYPE_CHECKING:
    from composer.trace import Answer
    from routers.decision import Decision

__all__ = ["answer_json", "ask", "chat", "route"]


class Retrieval(StrEnum):
    """When passages are retrieved."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


Query = Annotated[
    str, typer.Argument(help="The question or task; '-' reads it from standard input.")
]
Model = Annotated[str, typer.Option("--model", "-m", help="A composition, or one expert by name.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens to generate.", min=1)]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.", min=0, max=2)]

When = Annotated[
    Retrieval | None,
    typer.Option(
        help="Put passages before the question: as the gate says, never, or always; "
        "by default as the composition says.",
        case_sensitive=False,
    ),
]


def route(
    query: Query,
    registry: RegistryPath = Path("experts.yaml"),
    model: Model = "auto",
    retrieval: When = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show every candidate.")] = False,
    json: Json = False,
) -> None:
    """Say which expert would be asked, without asking it."""
    from composer.explanation import decision_json
    from composer.explanation import explain as in_words
    from composer.sdk import Composer

    with Composer.load(registry) as composer:
        decision = composer.route(read_query(query), model=model, retrieval=retrieval)
    if json:
        print_json(decision_json(decision))
    else:
        say(in_words(decision) if explain else _short(decision))


def ask(
    query: Query,
    registry: RegistryPath = Path("experts.yaml"),
    model: Model = "auto",
    workers: Workers = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    retrieval: When = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show how it was decided.")] = False,
    json: Json = False,
) -> None:
    """Ask a question; the answer streams in, the expert and the cost follow on the last line.

    Where passages were retrieved, they follow the answer; it cites them by number, as [1].
    """
    from composer.sdk import Composer

    with Composer.load(registry, workers=workers) as composer:
        how: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "retrieval": retrieval,
        }
        if json:
            print_json(answer_json(composer.query(read_query(query), model=model, **how)))
            return
        stream = composer.stream(read_query(query), model=model, **how)
        for piece in stream:
            typer.echo(piece, nl=False)
        say()
        _sign(stream.answer, explain)


def chat(
    registry: RegistryPath = Path("experts.yaml"),
    model: Model = "auto",
    workers: Workers = False,
    max_tokens: MaxTokens = None,
    json: Json = False,
) -> None:
    """Talk: each turn is routed anew with the conversation so far; an empty line ends it.

    With --json, each turn is one line.
    """
    from composer.sdk import Composer
    from experts_registry.errors import ExpertError, PromptError

    messages: list[dict[str, str]] = []
    with Composer.load(registry, workers=workers) as composer:
        while line := _next_line(json):
            messages.append({"role": "user", "content": line})
            try:
                stream = composer.stream(messages, model=model, max_tokens=max_tokens)
                for piece in stream:
                    if not json:
                        typer.echo(piece, nl=False)
            except (ExpertError, PromptError) as error:
                messages.pop()  # so that the next turn does not repeat what failed
                _report(error, json)
                continue
            messages.append({"role": "assistant", "content": stream.answer.text})
            if json:
                print_json(answer_json(stream.answer), is_line=True)
            else:
                say()
                _sign(stream.answer, False)


def answer_json(answer: "Answer") -> dict[str, Any]:
    """Return an answer as JSON values."""
    from composer.explanation import decision_json

    return {
        "id": answer.id,
        "model": answer.model,
        "query": answer.query,
        "text": answer.text,
        "expert": answer.expert,
        "cost_usd": answer.cost,
        "finish_reason": answer.generation.finish_reason,
        "decision": decision_json(answer.decision),
        "steps": [{**vars(step), "usage": vars(step.usage)} for step in answer.steps],
        "passages": [vars(passage) for passage in answer.passages],
        "citations": [vars(citation) for citation in answer.citations],
        "is_ungrounded": answer.is_ungrounded,
        "registry": answer.registry,
    }


def _short(decision: "Decision") -> str:
    from composer.explanation import retrieval_in_words

    said = [f"{decision.primary}: {decision.reason}"]
    if decision.retrieval is not None:
        said.append(retrieval_in_words(decision.retrieval))
    return "\n".join(said)


def _sign(answer: "Answer", explain: bool) -> None:
    """Print who answered and at what cost, or the whole explanation."""
    from composer.explanation import explain as in_words

    if answer.passages:
        typer.echo("\n" + passage_table(answer.passages), err=True)
    if explain:
        say("\n" + in_words(answer.decision))
    failed = [step.expert for step in answer.steps if step.error]
    notes = [
        answer.expert,
        f"after {', '.join(failed)} failed" if failed else answer.decision.reason,
        f"{answer.generation.usage.completion_tokens} tokens",
        f"{answer.seconds:.1f} s",
        f"${answer.cost:.2g}",
        _grounds(answer),
        "cut off at max_tokens" if answer.generation.finish_reason == "length" else "",
        "" if answer.text.strip() else "the answer is empty",
    ]
    typer.secho(
        f"[{' · '.join(filter(None, notes))}]",
        dim=True,
        err=True,  # so that `ask > file` keeps the answer alone
    )


def _grounds(answer: "Answer") -> str:
    """Say what the answer rests on."""
    retrieval = answer.decision.retrieval
    if answer.is_ungrounded and retrieval is not None:
        has_no_room = retrieval.is_retrieving
        return f"without passages: {'no room for one' if has_no_room else retrieval.reason}"
    if not answer.passages:
        return ""
    cited = sorted({citation.passage for citation in answer.citations})
    named = f"cites {', '.join(f'[{number}]' for number in cited)}" if cited else "cites none"
    return f"{len(answer.passages)} passages from {answer.passages[0].store}, {named}"


def _report(error: Exception, json: bool) -> None:
    if json:
        print_json(error_json(error), is_line=True)
    else:
        typer.echo(f"error: {error}", err=True)


def _next_line(json: bool) -> str:
    try:
        return input("" if json else "> ").strip()
    except EOFError:
        return ""
