"""The verb that reads the decision log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

if TYPE_CHECKING:
    from datetime import datetime

    from composer.decisions import Logged

__all__ = ["logs"]


def logs(
    request_id: Annotated[
        str | None, typer.Argument(help="Explain this request: the header x-request-id.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most rows, newest first.", min=1)] = 20,
    expert: Annotated[str | None, typer.Option(help="Only what this expert answered.")] = None,
    model: Annotated[str | None, typer.Option(help="Only what was asked of this model.")] = None,
    since: Annotated[str | None, typer.Option(help="Only the last 15m, 1h, 7d ...")] = None,
    status: Annotated[str | None, typer.Option(help="Only this HTTP status: 200, 5xx.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed.")] = False,
    prune: Annotated[
        int | None, typer.Option(help="Delete rows older than so many days; do no more.", min=0)
    ] = None,
    registry: RegistryPath = Path("experts.yaml"),
    json: Json = False,
) -> None:
    """Show the decisions of the HTTP door: who answered, why, at what cost. Texts are not kept.

    The log is decisions.db beside the expert file, or where 'decisions:' in that file says. For
    example:

    expert-composer logs --since 1h --failed

    expert-composer logs 7f3c0a52e1d94b0c9a51c7f0a8f0b7de
    """
    from composer.decision_log import DecisionLog
    from composer.locations import database_location
    from experts_registry.errors import DataError
    from experts_registry.registry import Registry

    log = DecisionLog(database_location(Registry.load(registry), "decisions"))
    if prune is not None:
        gone = log.prune(prune)
        print_json({"deleted": gone}) if json else say(f"deleted {gone} rows from {log.where}")
        return
    if request_id is not None:
        if (logged := log.get(request_id)) is None:
            raise DataError(
                f"decisions: {log.where}: has no request {request_id!r}; "
                "'expert-composer logs' shows the latest"
            )
        print_json(logged.json()) if json else _explain(logged)
        return
    rows = log.recent(
        limit, expert=expert, model=model, since=_moment(since), status=status, failed=failed
    )
    if json:
        print_json([row.json() for row in rows])
    elif rows:
        _table(rows)
    else:
        say("nothing was logged that fits; servers write the log, and options narrow it")


def _moment(since: str | None) -> "datetime | None":
    from datetime import UTC, datetime

    from composer.spans import ago

    return None if since is None else ago(since, datetime.now(UTC))


def _table(rows: "list[Logged]") -> None:
    head = ("time", "status", "model", "expert", "calls", "tokens", "usd", "s", "request")
    lines = [head] + [
        (
            row.time[:19],
            str(row.status),
            row.model,
            " ".join(filter(None, (row.expert, row.error))) or "-",
            str(len(row.steps)),
            str(row.prompt_tokens + row.completion_tokens),
            f"{row.cost:.4g}",
            "-" if row.seconds is None else f"{row.seconds:.2f}",
            row.request_id,
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(map(str.ljust, line, widths)).rstrip())


def _explain(logged: "Logged") -> None:
    from composer.explanation import explain

    end = f"{logged.status} {logged.error or ''}".strip()
    key = f", key {logged.key_id}" if logged.key_id else ""
    say(f"{logged.request_id}  {logged.time}  {end}{key}")
    say(f"asked: {logged.model} (registry {logged.registry[:12]}, generation {logged.generation})")
    if logged.query is not None:
        say(f"query: {logged.query!r}")
    say(explain(logged.decision) if logged.decision else "no expert was chosen")
    for step in logged.steps:
        tokens = f"{step.usage.prompt_tokens}+{step.usage.completion_tokens} tokens"
        tokens += " (estimated)" if step.is_estimated else ""
        tokens += f" with {step.passages} passages" if step.passages else ""
        end = step.error or "answered"
        say(f"  {step.expert}: {end} in {step.seconds:.2f} s, {tokens}, {step.cost:.4g} USD")
    say(f"cost: {logged.cost:.4g} USD")
