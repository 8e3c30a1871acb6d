"""Verbs on retrievers: train an expert for a domain, score and evaluate them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from composer.cli import retrieval_quality
from composer.cli.output import Json, RegistryPath, pairs, print_json, say

__all__ = ["app"]

app = typer.Typer(
    help="Train retrievers, each for a domain; score and evaluate them.", no_args_is_help=True
)
app.command()(retrieval_quality.score)
app.command()(retrieval_quality.evaluate)
FILE = Path("experts.yaml")


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="What the new retriever is called.")],
    base: Annotated[str, typer.Option(help="A registered retriever to start from.")],
    pairs_: Annotated[
        Path | None,
        typer.Option("--pairs", help='JSONL, {"query": ..., "passage": ...} a line.'),
    ] = None,
    judged: Annotated[
        Path | None,
        typer.Option(help="Folder of judged queries: queries.jsonl, qrels.csv, corpus.jsonl."),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Folder with corpus.jsonl, to search besides the passages of --pairs."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of the judged queries; by default train and those without a split."),
    ] = None,
    domain: Annotated[list[str] | None, typer.Option(help="What it is for; repeatable.")] = None,
    store: Annotated[
        list[str] | None, typer.Option(help="A store that it is to search; repeatable.")
    ] = None,
    side: Annotated[
        str,
        typer.Option(
            help="query: passages stay as the base embeds them, one index serves all experts; "
            "both: passages are learned too, and need an index of their own."
        ),
    ] = "query",
    out: Annotated[
        Path | None, typer.Option(help="Folder of its adapter (retrievers/NAME).")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Setting KEY=VALUE; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Of the processor; by default as many as there are.", min=1)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Register it even if it is not better than its base.")
    ] = False,
    registry: RegistryPath = FILE,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train a retriever for a domain from queries and the passages that answer them.

    A small adapter is learned on a base that stays as it is. A fifth of the
    queries is held out: on these, nDCG@10 is compared with the base's. Where
    nothing is gained the retriever is not registered, and the exit code is
    1. After a kill, the same command goes on where it stopped.

    For example: expert-composer retrievers train bio --base minilm
    --pairs pairs.jsonl --domain biology --store papers

    Settings are changed one by one: --set steps=800 --set learning_rate=5e-5
    """
    from composer.retriever_training.expert import train_expert
    from composer.retriever_training.registering import Newcomer
    from composer.retriever_training.settings import settings_of
    from experts_registry.registry import Registry

    chosen = settings_of({**pairs(set_), "side": side, "seed": seed, "threads": threads})
    newcomer = Newcomer(
        registry=Registry.load(registry),
        name=name,
        base=base,
        # Beside the registry, so that both can be moved together.
        folder=out or registry.parent / "retrievers" / name,
        domains=domain or (),
        stores=store or (),
    )
    newcomer.check()
    material = _material(pairs_, judged, corpus, split)
    try:
        expert = train_expert(newcomer, material, chosen, force=force, quiet=quiet or json)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on with {name}", err=True)
        raise
    if json:
        where = None if expert.folder is None else str(expert.folder)
        routers = list(map(str, expert.routers))
        found = {"name": name, "registered": where, "routers": routers}
        print_json({**found, "training": expert.trained.report})
    else:
        _tell(newcomer, expert, chosen.side)
    if expert.folder is None:
        raise typer.Exit(1)


def _material(
    pairs: Path | None, judged: Path | None, corpus: Path | None, split: str | None
) -> Any:
    from composer.retriever_training.material import of_pairs, read_judged_material, read_pairs

    if judged is not None and pairs is None:
        return read_judged_material(judged, corpus, split=split)
    if pairs is None or judged is not None:
        raise typer.BadParameter("give what it learns from: either --pairs or --judged")
    if split is not None:
        raise typer.BadParameter("--split is of --judged; pairs have none")
    return of_pairs(read_pairs(pairs), _texts(corpus))


def _texts(corpus: Path | None) -> list[str]:
    from composer.judged import read_corpus

    return [] if corpus is None else list(read_corpus(corpus).values())


def _tell(newcomer: Any, expert: Any, side: str) -> None:
    report, found = expert.trained.report, expert.trained.judgment
    data, gain = report["data"], found.gain
    say(
        f"{newcomer.name}: {report['steps']} batches in {report['seconds']:.0f} s, best after "
        f"{report['best_step']}; learned from {data['train']} queries"
    )
    say(
        f"nDCG@10 on {data['held_out']} held-out queries over {data['passages']} passages: "
        f"{newcomer.base} {found.before:.3f}, {newcomer.name} {found.after:.3f}"
    )
    say(
        f"expected gain {gain.value:+.3f} [{gain.interval.low:+.3f}, {gain.interval.high:+.3f}], "
        f"above 0 with probability {found.probability:.2f}"
    )
    if expert.folder is None:
        typer.echo(
            f"not registered: on queries of its kind {newcomer.name} is not better than "
            f"{newcomer.base}; give more or better pairs, change --set, or repeat with --force",
            err=True,
        )
        return
    say(f"saved {expert.folder}; {newcomer.name} is now in {newcomer.registry.path}")
    for store in newcomer.stores:
        if side == "both":
            say(f"next: expert-composer store build {store}, which has no index of it yet")
        else:
            say(f"{store}: searched through the index that {newcomer.base} has")
    for folder in expert.routers:
        say(f"{folder}: knows it by its {data['held_out']} held-out queries")
