"""Verbs that measure and learn: collect, train, evaluate, demo."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, Workers, pairs, print_json, say

__all__ = ["collect", "demo", "evaluate", "train"]

Outcomes = Annotated[Path, typer.Option("--outcomes", "-o", help="Outcomes to learn from.")]
Cost = Annotated[
    str | None,
    typer.Option(
        help="What counts as cost: usd, active_params or seconds; by default what is there."
    ),
]


def collect(
    queries: Annotated[Path, typer.Argument(help="Query file: one graded query a line.")] = Path(
        "queries.jsonl"
    ),
    out: Annotated[Path, typer.Option("--out", "-o", help="Where outcomes go.")] = Path(
        "outcomes.parquet"
    ),
    registry: RegistryPath = Path("experts.yaml"),
    expert: Annotated[
        list[str] | None, typer.Option("--expert", "-e", help="Only these experts; repeatable.")
    ] = None,
    workers: Workers = True,
    concurrency: Annotated[int, typer.Option(help="Calls in flight per expert.", min=1)] = 8,
    json: Json = False,
) -> None:
    """Ask every expert every query, grade the answers, record quality and cost.

    Finished cells are kept at once: after a kill, the same command goes on where it stopped.
    """
    from composer.measuring import measure

    run = measure(
        registry, queries, out, only=expert or (), workers=workers, concurrency=concurrency,
        quiet=json,
    )  # fmt: skip
    try:
        summary = asyncio.run(run)
    except (KeyboardInterrupt, SystemExit):
        stopped = f"stopped; finished cells are kept in {out}: the same command goes on"
        print_json({"stopped": stopped}) if json else typer.echo(stopped, err=True)
        raise
    if json:
        print_json(vars(summary))
    else:
        say(f"{out}: {summary}")
        for name, error in summary.errors.items():
            typer.echo(f"{name}: {error}", err=True)
        if not summary.given_up:
            say(f"next: expert-composer train --outcomes {out}")
    if summary.given_up:
        raise typer.Exit(1)


def train(
    outcomes: Outcomes = Path("outcomes.parquet"),
    router: Annotated[
        str, typer.Option(help="A router's registered name, or module:Name.")
    ] = "category",
    out: Annotated[Path | None, typer.Option(help="Folder to save to [routers/<name>].")] = None,
    registry: RegistryPath = Path("experts.yaml"),
    cost: Cost = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Hyperparameter KEY=VALUE; repeatable.")
    ] = None,
    test: Annotated[
        float, typer.Option(help="Share of queries held out.", min=0.05, max=0.9)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.", min=0)] = 0,
    json: Json = False,
) -> None:
    """Fit a router, judge it on held-out queries beside the baselines, save it."""
    from composer.cli.report import report_lines
    from composer.routing import Routing
    from composer.training import train as fit
    from experts_registry.registry import Registry
    from routers.building import build_router
    from routers.data import RoutingDataset

    routing = Routing(Registry.load(registry))
    data = RoutingDataset.load(outcomes, cost=_cost(cost))
    estimator = build_router(router, routing.encoder(), pairs(set_))
    # Beside the registry: that is where a composition's `router: routers/category` is looked for.
    folder = out or registry.parent / "routers" / router.rpartition(":")[2].lower()
    trained = fit(estimator, data, folder, test=test, seed=seed)
    if json:
        print_json({"router": str(trained.path), "report": trained.report.to_json()})
        return
    for line in report_lines(trained.report):
        say(line)
    name = os.path.relpath(trained.path, registry.parent)
    say(f"saved {trained.path}; use it with 'router: {name}' in a composition of {registry}")


def evaluate(
    outcomes: Outcomes = Path("outcomes.parquet"),
    router: Annotated[
        Path | None, typer.Option(help="Folder of a trained router [routers/category].")
    ] = None,
    registry: RegistryPath = Path("experts.yaml"),
    cost: Cost = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw quality against cost here (.png).")
    ] = None,
    json: Json = False,
) -> None:
    """Judge a trained router on the queries it was not fitted on, beside the baselines."""
    from composer.cli.report import report_lines
    from composer.routing import Routing
    from composer.training import evaluate_saved
    from experts_registry.registry import Registry
    from routers.data import RoutingDataset

    if plot is not None:
        from composer.plots import draw_report  # before the work: it may be missing

    routing = Routing(Registry.load(registry))
    data = RoutingDataset.load(outcomes, cost=_cost(cost))
    folder = router or registry.parent / "routers" / "category"
    report = evaluate_saved(folder, routing.encoder(), data)
    drawn = [] if plot is None else draw_report(report, plot)
    if json:
        print_json(report.to_json())
        return
    for line in report_lines(report):
        say(line)
    for picture in drawn:
        say(f"wrote {picture}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for what the demo makes.")] = Path("demo-out"),
    recollect: Annotated[
        bool,
        typer.Option("--collect", help="Measure the experts anew (under an hour on two cores)."),
    ] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Take the models from their upstream repositories.")
    ] = False,
    json: Json = False,
) -> None:
    """See three real models measured, a router learn, and fresh questions find their expert."""
    from composer.cli.demo import run

    run(out, recollect=recollect, hub=hub, as_json=json)


def _cost(name: str | None) -> Any:
    if name not in (None, "usd", "active_params", "seconds"):
        raise typer.BadParameter(f"{name!r} is not usd, active_params or seconds")
    return name
