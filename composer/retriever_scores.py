"""Score retrievers on judged queries, as outcomes that routers learn from.

A cell is a (query, retriever) pair, its quality the nDCG@10 of the list that was found, its
category the domain of the queries. What is finished is kept, so that a run that was stopped goes
on, and a retriever that came later fills its own cells only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np

from composer.cells import Row, digest_of
from composer.journal import Journal
from composer.judged import JudgedQuery
from composer.retrieval_measures import NDCG, measured
from composer.retrieval_runs import Collection, ranked
from composer.tally import OnProgress, Tally
from experts_registry.types import Embedder

__all__ = ["Scored", "sampled", "score"]

_BATCH = 64  # queries whose lists a kill may cost


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a run came to.

    Args:
        path: of the outcomes.
        queries: judged ones.
        computed: cells of this run.
        kept: cells that were there already.
        mean: retriever -> mean nDCG@10 over these queries.
    """

    path: Path
    queries: int
    computed: int
    kept: int
    mean: Mapping[str, float]


def score(
    judged: Sequence[JudgedQuery],
    domain: str,
    collection: Collection,
    retrievers: Mapping[str, Callable[[], Embedder]],
    out: Path,
    *,
    on_progress: OnProgress = lambda expert, tally: None,
) -> Scored:
    """Fill the cells of these queries and retrievers in a Parquet file of outcomes.

    Args:
        judged: the queries.
        domain: the category of their outcomes; also keeps equal ids of other domains apart.
        collection: what is searched.
        retrievers: name -> opens it; one without missing cells is not opened.
        out: made or extended.
        on_progress: told a retriever's name and tally after every batch.

    Raises:
        DataError: the file cannot be read or written, or another process writes to it.
    """
    computed, kept, mean = 0, 0, {}
    with Journal.opened(out) as journal:
        for name, opened in retrievers.items():
            embedder = opened()
            cells = {q.id: _cell(q, embedder, collection) for q in judged}
            done = [_row(journal, domain, q, name, cells[q.id]) for q in judged]
            quality = [row["quality"] for row in done if row is not None]
            todo = [q for q, row in zip(judged, done, strict=True) if row is None]
            tally = Tally(
                total=len(judged), kept=len(quality), graded=len(quality), quality=sum(quality)
            )
            on_progress(name, tally)
            for start in range(0, len(todo), _BATCH):
                part = todo[start : start + _BATCH]
                for query, row in zip(part, _scored(part, collection, embedder), strict=True):
                    journal.add(_labels(query, domain, name) | row | {"cell": cells[query.id]})
                    tally = tally.with_cell(row["quality"])
                on_progress(name, tally := replace(tally, asked=start + len(part)))
            computed, kept = computed + len(todo), kept + tally.kept
            mean[name] = tally.quality / max(tally.graded, 1)
    return Scored(path=out, queries=len(judged), computed=computed, kept=kept, mean=mean)


def sampled(judged: Sequence[JudgedQuery], most: int) -> list[JudgedQuery]:
    """Return at most so many queries of each split, always the same ones, in their order."""
    kept: list[int] = []
    for split in sorted({query.split for query in judged}):
        rows = [i for i, query in enumerate(judged) if query.split == split]
        kept += np.random.default_rng(0).permutation(rows)[:most].tolist()
    return [judged[i] for i in sorted(kept)]


def _scored(judged: Sequence[JudgedQuery], collection: Collection, embedder: Embedder) -> list[Row]:
    began = perf_counter()
    found = ranked(collection, embedder, judged)
    seconds = (perf_counter() - began) / len(judged)
    quality = measured(judged, found, [NDCG])[NDCG]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return [{"quality": q, "seconds": seconds, "date": date} for q in quality.tolist()]


def _row(journal: Journal, domain: str, query: JudgedQuery, name: str, cell: str) -> Row | None:
    """Return the finished row with today's labels, or None where there is none."""
    key = (f"{domain}/{query.id}", name)
    row = journal.rows.get(key)
    if row is None or row["quality"] is None or row.get("cell") != cell:
        return None
    journal.rows[key] = row | _labels(query, domain, name)
    return journal.rows[key]


def _labels(query: JudgedQuery, domain: str, name: str) -> Row:
    return {
        "query_id": f"{domain}/{query.id}",
        "query": query.text,
        "category": domain,
        "split": query.split or None,
        "expert": name,
        "grader": NDCG,
    }


def _cell(query: JudgedQuery, embedder: Embedder, collection: Collection) -> str:
    """Identify what decides a score: the query, its judgments, the vectors, the collection."""
    asked = [query.text, sorted(query.relevant.items()), embedder.digest, collection.digest, NDCG]
    return digest_of(asked)[:32]
