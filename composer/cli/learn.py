"""Verbs that measure and learn: collect, train, evaluate, demo."""

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, Workers, pairs, print_json, say

__all__ = ["adopt", "collect", "demo", "evaluate", "train"]

Outcomes = Annotated[Path, typer.Option("--outcomes", "-o", help="Outcomes to learn from.")]
Cost = Annotated[
    str | None,
    typer.Option(
        help="What counts as cost: usd, active_params or seconds; by default what is there."
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(help="The pinned expert: tell where the router is significantly below it."),
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
    with_and_without: Annotated[
        list[str] | None,
        typer.Option(
            "--with-and-without",
            help="Ask also with passages of this store; repeatable. 'gate train' learns from it.",
        ),
    ] = None,
    passages: Annotated[int, typer.Option(help="Passages of a store per query.", min=1)] = 3,
    json: Json = False,
) -> None:
    """Ask every expert every query, grade the answers, record quality and cost.

    Finished cells are kept at once: after a kill, the same command goes on where it stopped.

    With --with-and-without STORE, every query is asked once as it is and once
    behind the passages that a search of the store finds. The outcomes are
    named EXPERT and EXPERT+STORE, and a retrieval gate learns from them:

    expert-composer collect --with-and-without handbook --passages 2

    expert-composer gate train outcomes.parquet
    """
    from composer.measuring import measure

    run = measure(
        registry, queries, out, only=expert or (), workers=workers, concurrency=concurrency,
        quiet=json, stores=with_and_without or (), k=passages,
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
            then = "gate train" if with_and_without else "train --outcomes"
            say(f"next: expert-composer {then} {out}")
    if summary.given_up:
        raise typer.Exit(1)


def train(
    outcomes: Outcomes = Path("outcomes.parquet"),
    router: Annotated[
        str, typer.Option(help="A router's registered name, or module:Name.")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder to save to (routers/<name>).")] = None,
    registry: RegistryPath = Path("experts.yaml"),
    cost: Cost = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Hyperparameter KEY=VALUE; repeatable.")
    ] = None,
    test: Annotated[
        float, typer.Option(help="Share of queries held out.", min=0.05, max=0.9)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.", min=0)] = 0,
    baseline: Baseline = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="For a store's router: the retriever that it reads queries with; by default the "
            "file's encoder, which is the only one that compositions know."
        ),
    ] = None,
    keep_queries: Annotated[
        bool,
        typer.Option("--keep-queries", help="Keep embedded queries, for 'neighbours' in a file."),
    ] = False,
    json: Json = False,
) -> None:
    """Audit outcomes, fit a router, judge it on held-out queries, save it.

    The audit tells what makes outcomes mislead: duplicates, leaks between
    splits, missing cells, noisy grades, token counts that nobody counted.
    It stops only where nothing can be learned.

    For example: expert-composer train -o logs/ --router knn
    """
    from composer.cli.report import report_lines
    from composer.progress import steps
    from composer.routing import Routing
    from composer.training import audit_outcomes
    from composer.training import train as fit
    from experts_registry.registry import Registry
    from routers.building import build_router
    from routers.data import RoutingDataset

    file = Registry.load(registry)
    routing = Routing(file)
    data = RoutingDataset.load(outcomes, cost=_cost(cost))
    reader = routing.encoder() if encoder is None else routing.opened.embedder(encoder)
    estimator = build_router(router, reader, pairs(set_))
    findings = audit_outcomes(outcomes, data)
    # Beside the registry: that is where a composition's `router: routers/auto` is looked for.
    folder = out or registry.parent / "routers" / router.rpartition(":")[2].lower()
    with steps(3, "steps", quiet=json) as advance:
        trained = fit(
            estimator, data, folder, test=test, seed=seed, baseline=baseline,
            keep_queries=keep_queries, findings=findings, advance=advance,
        )  # fmt: skip
    if json:
        print_json({"router": str(trained.path), "report": trained.report.to_json()})
        return
    for line in report_lines(trained.report):
        say(line)
    name = os.path.relpath(trained.path, registry.parent)
    place = "store" if set(data.experts) <= set(file.retrievers) else "composition"
    say(f"saved {trained.path}; use it with 'router: {name}' in a {place} of {registry}")


def evaluate(
    outcomes: Outcomes = Path("outcomes.parquet"),
    router: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a trained router (routers/auto); repeat to compare."),
    ] = None,
    registry: RegistryPath = Path("experts.yaml"),
    cost: Cost = None,
    baseline: Baseline = None,
    refits: Annotated[
        int, typer.Option(help="Fit anew on so many random splits; 0 judges what is saved.", min=0)
    ] = 5,
    categories: Annotated[
        int, typer.Option(help="Leave out so many categories in turn, the largest first.", min=0)
    ] = 5,
    experts: Annotated[
        int, typer.Option(help="Hide so many experts in turn, the most used first.", min=0)
    ] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first random split.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, report.html and the plots.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge trained routers on queries that they were not fitted on.

    Beside them stand: random, the best single expert, the best expert of
    each category, a rule on prompt length, ridge regression on words, the
    router itself trained on shuffled outcomes, which must gain nothing, and
    the oracle, which nobody reaches. All are followed over the willingness
    to pay; differences are paired and have 95 % intervals.

    Refits tell what holds on other splits (--refits), on a category never
    seen (--categories), and with an expert that came later, known by 20
    probes (--experts). With --refits 0 only what is saved is judged.

    For example, to compare two routers and write a report to look at:

    expert-composer evaluate --router routers/knn --router routers/cluster --out found
    """
    from composer.cli.report import report_lines
    from composer.progress import steps
    from composer.routing import Routing
    from composer.study import Plan
    from composer.training import audit_outcomes, evaluate_saved
    from experts_registry.registry import Registry
    from routers.data import RoutingDataset

    if out is not None:
        from composer.publishing import publish  # before the work: what it needs may be missing

    routing = Routing(Registry.load(registry))
    data = RoutingDataset.load(outcomes, cost=_cost(cost))
    folders = router or [registry.parent / "routers" / "auto"]
    findings = audit_outcomes(outcomes, data)
    plan = Plan(refits=refits, categories=categories, experts=experts, baseline=baseline, seed=seed)
    total = len(folders) + (plan.fits(len(folders), data) if refits else 0)
    with steps(total, "fits", quiet=json) as advance:
        report = evaluate_saved(
            folders, routing.encoder(), data, plan=plan if refits else None, baseline=baseline,
            findings=findings, advance=advance,
        )  # fmt: skip
    command = shlex.join(["expert-composer", *sys.argv[1:]])
    written = [] if out is None else publish(report, out, command=command)
    if json:
        print_json(report.to_json())
        return
    for line in report_lines(report):
        say(line)
    for path in written:
        say(f"wrote {path}")


def adopt(
    outcomes: Annotated[Path, typer.Argument(help="Outcomes of the new experts on a few queries.")],
    router: Annotated[
        Path | None, typer.Option(help="Folder of a trained router (routers/auto).")
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(help="Outcomes of the other experts (outcomes.parquet, where it is there)."),
    ] = None,
    registry: RegistryPath = Path("experts.yaml"),
    json: Json = False,
) -> None:
    """Teach a trained router experts that came later, from a few probes.

    Nothing is trained again and no other expert's scores change. What is
    declared in the registry, domains and published scores, counts too; with
    an error as wide as so few answers leave it. Take probes from the queries
    that the others have answered: how hard each was for them makes twenty
    probes worth about thirty.

    For example, after adding 'newcomer' to experts.yaml:

    expert-composer collect probes.jsonl --out probes.parquet --expert newcomer

    expert-composer adopt probes.parquet
    """
    from composer.adopting import adopt_saved
    from composer.routing import Routing
    from experts_registry.registry import Registry
    from routers.data import RoutingDataset

    file = Registry.load(registry)
    folder = router or registry.parent / "routers" / "auto"
    data = RoutingDataset.load(outcomes)
    beside = known or registry.parent / "outcomes.parquet"
    others = RoutingDataset.load(beside) if known or beside.exists() else None
    found = adopt_saved(folder, Routing(file).encoder(), data, file, known=others)
    if json:
        print_json([vars(one) for one in found])
        return
    for one in found:
        expected = (
            "nothing but its prior"
            if one.quality is None
            else f"quality {one.quality:.2f} ± {one.error:.2f} expected on them"
        )
        say(f"{one.expert}: {one.probes} probes, {expected}")
    say(f"saved {folder}; 'expert-composer train' learns all of them together once there are more")


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
