"""Verbs that learn from use: feedback add, list, drift, export, cells; and retrain."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

if TYPE_CHECKING:
    from composer.feedback import Feedback
    from composer.feedback_store import FeedbackStore

__all__ = ["app", "retrain"]

app = typer.Typer(
    help="What people say about answers: record it, look at it, learn from it.\n\n"
    "It is kept in feedback.db beside the expert file, or where 'feedback:' in that file says. "
    "Queries are stored as they were asked, and only those that somebody gave feedback on. "
    "'expert-composer retrain' teaches a router what was said.",
    no_args_is_help=True,
)
FILE = Path("experts.yaml")
Outcomes = Annotated[
    Path, typer.Option("--outcomes", "-o", help="The outcomes that the router was trained from.")
]


@app.command()
def add(
    quality: Annotated[float, typer.Argument(help="From 0, bad, to 1, perfect.")],
    answer: Annotated[
        Path | None,
        typer.Option("--answer", "-a", help="File with what 'ask --json' printed; '-' is stdin."),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="An answer that has feedback: replace it.")
    ] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="What was asked.")] = None,
    expert: Annotated[str | None, typer.Option("--expert", "-e", help="Who answered it.")] = None,
    grader: Annotated[str, typer.Option(help="Who gives the grade.")] = "user",
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Record how good an answer was; on the same answer it replaces what was said before.

    Name the answer by one of --answer, --id, or --query with --expert. For example:

    expert-composer ask "What is 17 * 23?" --json | expert-composer feedback add 1 --answer -
    """
    from composer.feedback import Feedback
    from experts_registry.errors import DataError, unknown_name
    from experts_registry.registry import Registry

    store = _store(registry)
    if id_ is not None:
        if (old := store.get(id_)) is None:
            raise DataError(f"feedback: answer {id_!r} has none yet; use --answer, or --query")
        given = old.regraded(quality, grader)
    elif answer is not None:
        given = _of_answer(answer, quality, grader)
    else:
        given = Feedback.about(query or "", expert or "", quality, grader=grader)
        if given.expert not in (known := Registry.load(registry).llms):
            raise unknown_name("expert", given.expert, known)
    store.add(given)
    if json:
        print_json(asdict(given))
    else:
        say(f"{given.answer_id}: {given.expert} {given.quality:g}, stored in {store.where}")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="Most rows to show, newest first.", min=1)] = 20,
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Show the latest feedback; --json has every column, propensities too."""
    rows = _store(registry).latest(limit)
    if json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        say("no feedback yet; give some with 'expert-composer feedback add' or in Python")
    for row in rows:
        query = " ".join(row.query.split())
        query = query if len(query) <= 60 else f"{query[:57]}..."
        say(f"{row.time[:19]}  {row.quality:4.2f}  {row.expert}  {row.answer_id}  {query}")


@app.command()
def drift(
    outcomes: Outcomes = Path("outcomes.parquet"),
    window: Annotated[int, typer.Option(help="Grades that are compared.", min=2)] = 50,
    threshold: Annotated[
        float, typer.Option(help="An alarm needs a p-value below this.", min=0, max=1)
    ] = 0.001,
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Say where feedback no longer agrees with the outcomes a router was trained on.

    Feedback is replayed, oldest first. In every (category, expert) cell the last WINDOW grades
    are held against the outcomes; after an alarm, against these grades. With the defaults about
    2 % of unchanged cells raise one within 200 grades, and a fall from 0.7 to 0.4 is noticed
    within one window in more than 8 of 10 cases, given 500 outcomes of the cell.
    """
    from routers.data import RoutingDataset
    from routers.drift import DriftMonitor, reference_rates

    rates = reference_rates(RoutingDataset.load(outcomes))
    monitor = DriftMonitor(rates, window=window, threshold=threshold)
    rows = _store(registry).all()
    raised = [
        (row.time, alarm)
        for row in rows
        if (alarm := monitor.observe(row.category or "", row.expert, row.quality)) is not None
    ]
    judged = sum(n >= window and cell in rates for cell, n in monitor.observations.items())
    if json:
        alarms = [{"time": time, **asdict(alarm)} for time, alarm in raised]
        print_json({"feedback": len(rows), "cells_judged": judged, "alarms": alarms})
        return
    for time, a in raised:
        change = "worse" if a.is_worse else "better"
        say(
            f"{time[:19]}  {a.expert} got {change} on {a.category or 'all categories'}: "
            f"{a.before:.2f} -> {a.now:.2f} (p = {a.p_value:.1g}, grade {a.observation})"
        )
    say(f"{len(rows)} grades, {judged} cells with {window} or more, {len(raised)} alarms")
    if raised:
        say(f"next: expert-composer retrain --outcomes {outcomes}")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")] = Path("feedback.parquet"),
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Write feedback as outcomes; several grades of one (query, expert) cell become their mean."""
    from composer.feedback import outcome_rows
    from experts_registry.errors import DataError
    from routers.outcomes import write_outcomes

    store = _store(registry)
    if not (rows := outcome_rows(store.all())):
        raise DataError(f"feedback: {store.where} holds none; give some first")
    write_outcomes(out, rows)
    if json:
        print_json({"written": out, "cells": len(rows)})
    else:
        say(f"wrote {out}: {len(rows)} cells")


@app.command()
def cells(
    budget: Annotated[int, typer.Argument(help="How many answers can be graded.", min=1)] = 100,
    outcomes: Outcomes = Path("outcomes.parquet"),
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    json: Json = False,
) -> None:
    """Say which (category, expert) cells to grade next, where labels are dear.

    Cells where an expert may beat the one that looks best in its category come first.
    """
    from routers.data import RoutingDataset
    from routers.labelling import next_cells

    found = next_cells(RoutingDataset.load(outcomes), budget, seed=seed)
    if json:
        print_json([{"category": c, "expert": e, "labels": n} for (c, e), n in found.items()])
        return
    for (category, expert), labels in found.items():
        say(f"{labels:>5}  {category}  {expert}")


def retrain(
    outcomes: Outcomes = Path("outcomes.parquet"),
    router: Annotated[
        Path | None, typer.Option(help="Folder of a trained router; by default routers/auto.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace it even if the new one is worse.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put the previous router back, and do no more.")
    ] = False,
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Train a router again with feedback; keep the old one where the new one is worse.

    Class and hyperparameters stay. Both routers are judged on the queries that were held out when
    the old one was trained; the new one is saved unless it is significantly worse (on fewer than
    20 such queries: unless it is lower). The old one stays beside it as NAME.previous.
    """
    from composer.retraining import retrain as fit_again
    from composer.retraining import roll_back
    from composer.routing import Routing
    from experts_registry.registry import Registry
    from routers.data import RoutingDataset

    folder = router or registry.parent / "routers" / "auto"
    if rollback:
        roll_back(folder)
        print_json({"path": folder}) if json else say(f"{folder}: the previous router is back")
        return
    encoder = Routing(Registry.load(registry)).encoder()
    data, feedback = RoutingDataset.load(outcomes), _store(registry).all()
    done = fit_again(folder, encoder, data, feedback, force=force)
    if json:
        print_json(asdict(done))
        return
    say(f"learned {done.learned} cells from {done.feedback} grades: {done.judgement}")
    if done.is_replaced:
        say(f"saved {folder}; 'expert-composer retrain --rollback' goes back to {done.previous}")
    else:
        say(f"kept {folder}: the new router is worse; --force replaces it all the same")


def _store(registry: Path) -> "FeedbackStore":
    from composer.feedback import feedback_location
    from composer.feedback_store import FeedbackStore
    from experts_registry.registry import Registry

    return FeedbackStore(feedback_location(Registry.load(registry)))


def _of_answer(path: Path, quality: float, grader: str) -> "Feedback":
    """Read what ``ask --json`` printed."""
    import json

    from composer.feedback import Feedback
    from composer.trace import Answer, Step
    from experts_registry.errors import DataError
    from experts_registry.types import Generation, Usage
    from routers.decision import Decision

    content = typer.get_binary_stream("stdin").read() if str(path) == "-" else path.read_bytes()
    try:
        told: dict[str, Any] = json.loads(content)
        decision = {
            key: told["decision"][key] for key in ("experts", "scores", "reason", "details")
        }
        steps = [{**step, "usage": Usage(**step["usage"])} for step in told["steps"]]
        answer = Answer(
            text=told["text"],
            decision=Decision(**decision),
            steps=tuple(Step(**step) for step in steps),
            generation=Generation(text=told["text"]),
            **{key: told[key] for key in ("registry", "query", "model", "id")},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is not what 'expert-composer ask --json' prints ({error!r})"
        ) from error
    return Feedback.on(answer, quality, grader=grader)
