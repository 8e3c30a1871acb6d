"""Verbs on the quality of retrievers: score them for a router, evaluate them alone and routed."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

if TYPE_CHECKING:
    from composer.opened import Opened
    from composer.retrieval_evaluation import Bench
    from composer.retrieval_runs import Collection
    from experts_registry.registry import Registry
    from routers.base import Router
    from routers.data import RoutingDataset

__all__ = ["evaluate", "score"]

FILE = Path("experts.yaml")
SCORES = Path("retriever-outcomes.parquet")
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Retrievers = Annotated[
    list[str] | None,
    typer.Option("--retriever", help="Only these; by default the store's, or all; repeatable."),
]
StoreName = Annotated[
    str | None, typer.Option(help="Search this store; by default corpus.jsonl of the folder.")
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Keep embedded passages of a corpus here, for the next time."),
]


def score(
    judged: Annotated[
        Path, typer.Argument(help="Folder of judged queries: queries.jsonl and qrels.")
    ],
    domain: Annotated[
        str | None, typer.Option(help="Category of the outcomes; by default the folder's name.")
    ] = None,
    store: StoreName = None,
    retriever: Retrievers = None,
    split: Annotated[str | None, typer.Option(help="Only queries of this split.")] = None,
    most: Annotated[int, typer.Option(help="Most queries of a split.", min=1)] = 2000,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where outcomes go.")] = SCORES,
    cache: Cache = None,
    registry: RegistryPath = FILE,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score every retriever on judged queries: outcomes that a pilot router learns from.

    The quality of a cell is the nDCG@10 of the list that was found, its
    category the domain. Finished cells are kept: after a kill the same
    command goes on, and a retriever that was added fills its own cells.
    Several domains go into one file. Score queries that no retriever was
    trained on: on its own training queries an expert looks too good.

    For example:

    expert-composer retrievers score data/medical --out scores.parquet

    expert-composer train --router pilot --outcomes scores.parquet
    """
    from composer.judged import read_judged
    from composer.progress import progress
    from composer.retriever_scores import sampled
    from composer.retriever_scores import score as fill

    queries = sampled(read_judged(judged, split=split), most)
    with _opened(registry) as (file, opened):
        collection = _collection(file, judged, store, cache)
        names = _names(file, store, retriever)
        openers = {name: _opener(opened, name) for name in names}
        with progress(quiet=quiet or json) as told:
            found = fill(queries, domain or judged.name, collection, openers, out, on_progress=told)
    if json:
        print_json(vars(found))
        return
    for name, mean in found.mean.items():
        say(f"{name}: nDCG@10 {mean:.3f} on {found.queries} queries")
    say(f"{out}: {found.computed} cells computed, {found.kept} were there")
    say(f"next: expert-composer train --router pilot --outcomes {out}")


def evaluate(
    judged: Annotated[
        list[Path], typer.Argument(help="Folders of judged queries, one for each dataset.")
    ],
    store: StoreName = None,
    retriever: Retrievers = None,
    general: Annotated[
        str | None,
        typer.Option(help="The retriever to compare with; by default the file's encoder."),
    ] = None,
    router: Annotated[
        Path | None, typer.Option(help="Folder of a trained pilot router (routers/pilot).")
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="Scores that it learned from; baselines learn from them.")
    ] = None,
    split: Annotated[str, typer.Option(help="Queries to evaluate on.")] = "test",
    report: Annotated[
        Path | None, typer.Option(help="Folder for an HTML report and pictures.")
    ] = None,
    cache: Cache = None,
    registry: RegistryPath = FILE,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.", min=100)] = 10_000,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure retrievers on judged queries: each alone, routed, and the baselines.

    nDCG@10, Recall@10, Recall@100 and MRR@10 for each dataset and as a mean
    over datasets, and whether routing is better by more than luck: paired
    bootstrap intervals of the routed mean less every other.

    For example:

    expert-composer retrievers evaluate data/medical data/law
    --router routers/pilot --outcomes scores.parquet
    """
    from composer.pilots import load_pilots
    from composer.retrieval_evaluation import evaluate_retrievers
    from composer.retrieval_report import retrieval_lines
    from routers.data import RoutingDataset

    train = None if outcomes is None else RoutingDataset.load(outcomes)
    with _opened(registry) as (file, opened):
        base = general or (file.encoder.name if file.encoder else None)
        names = _names(file, store, retriever)
        pilot = None if router is None else load_pilots(router, file, opened.embedder)
        bench = _bench(
            file, opened, judged, names, store=store, split=split, cache=cache, quiet=quiet or json
        )
        found = evaluate_retrievers(
            bench, general=base or names[0], router=pilot, train=_known(train), resamples=resamples
        )
        pages = _pages(report, pilot, _known(train), bench)
    if json:
        print_json(found.to_json() | {"pages": pages})
        return
    for line in retrieval_lines(found):
        say(line)
    for page in pages:
        say(f"wrote {page}")


@contextmanager
def _opened(registry: Path) -> "Iterator[tuple[Registry, Opened]]":
    from composer.opened import Opened
    from experts_registry.registry import Registry

    file = Registry.load(registry)
    opened = Opened(file)
    try:
        yield file, opened
    finally:
        opened.close()


def _opener(opened: "Opened", name: str) -> Any:
    return lambda: opened.embedder(name)


def _names(file: "Registry", store: str | None, only: list[str] | None) -> list[str]:
    """Return the retrievers that are asked for, each of which there must be."""
    from experts_registry.errors import RegistryError, unknown_name

    known = file.retrievers
    asked = only or [n for n in (file.store(store).retrievers if store else known) if n in known]
    for name in asked:
        if name not in known:
            raise unknown_name("retriever", name, known)
    if not asked:
        raise RegistryError(f"{file.path}: has no retriever; add one to 'experts:'")
    return asked


def _collection(
    file: "Registry", folder: Path, store: str | None, cache: Path | None
) -> "Collection":
    from composer.judged import read_corpus
    from composer.retrieval_runs import Corpus, StoreCollection
    from composer.stores.store import Store

    if store is None:
        return Corpus(read_corpus(folder), cache)
    file.store(store)  # raises where there is none of that name
    return StoreCollection(Store.open(file.store_folder(store), name=store))


def _bench(
    file: "Registry",
    opened: "Opened",
    folders: list[Path],
    names: list[str],
    *,
    store: str | None,
    split: str,
    cache: Path | None,
    quiet: bool,
) -> "Bench":
    from composer.judged import read_judged
    from composer.progress import steps
    from composer.retrieval_evaluation import Bench
    from composer.retrieval_runs import ranked

    judged = {folder.name: read_judged(folder, split=split) for folder in folders}
    lists: dict[str, dict[str, Any]] = {}
    with steps(len(folders) * len(names), "runs", quiet=quiet) as advance:
        for folder in folders:
            collection = _collection(file, folder, store, cache)
            lists[folder.name] = {}
            for name in names:
                found = ranked(collection, opened.embedder(name), judged[folder.name])
                lists[folder.name][name] = found
                advance(f"{name} on {folder.name}")
    return Bench(judged, lists)


def _known(train: "RoutingDataset | None") -> "RoutingDataset | None":
    """Return the outcomes that may be learned from: none of split test."""
    if train is None:
        return None
    return train.select([i for i, split in enumerate(train.split) if split != "test"])


def _pages(
    folder: Path | None, router: "Router | None", train: "RoutingDataset | None", bench: "Bench"
) -> list[str]:
    """Write the report that every router has, on nDCG@10 as quality."""
    from composer.evaluation import evaluate as compare
    from composer.publishing import publish
    from experts_registry.errors import OptionError

    if folder is None:
        return []
    if router is None or train is None:
        raise OptionError("report: compares a router with baselines; give --router and --outcomes")
    found = compare(router, train, bench.table)
    return [
        *map(str, publish(found, folder, command=shlex.join(["expert-composer", *sys.argv[1:]])))
    ]
