"""Ask a small language model questions with and without passages, and keep what came of it.

    python benchmarks/gating_data.py [FOLDER] --out qa.parquet [--train 110] [--test 85]

Three kinds of questions, of each ``--train`` and ``--test``: HotpotQA (its paragraphs are in the
store), English XQuAD (its paragraphs too) and open questions of NQ (mostly not answered in it).
The expert is the demo's SmolLM2-135M, the store is searched flat by MiniLM; an answer is right
where it contains a gold answer. Yes-or-no questions are left out: any answer contains a "no" soon.
A run that was stopped goes on where it was.
"""

import argparse
import asyncio
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from composer.collect import collect_columns
from composer.collecting_arms import arm_columns, asking_arms, search_all
from composer.demo import run as demo
from composer.dispatch import LocalDispatcher
from composer.graders import Contains
from composer.opening import open_embedder
from composer.progress import progress
from composer.queries import Query
from composer.stores.retrieved import Retrieved
from experts_registry.passages import Passage
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray, Prompt
from routers.decision import Decision
from routers.outcomes import read_outcomes, write_outcomes

STORE, WORDS, PASSAGES, MAX_TOKENS = "wiki", 100, 2, 20
EXPERT = "smollm2"


@dataclass(frozen=True)
class Question:
    """A question with its gold answers, and the paragraphs that came with it."""

    id: str
    text: str
    answers: tuple[str, ...]
    kind: str
    split: str
    paragraphs: tuple[Passage, ...] = ()


@dataclass(frozen=True, eq=False)
class FlatSearch:
    """Compares a query with every passage."""

    passages: tuple[Passage, ...]
    x: FloatArray  # (n, d)
    embedder: Embedder

    def __call__(self, store: str, query: str, k: int) -> Retrieved:
        """Return the ``k`` best passages, and the similarity of the ten best."""
        similarity = self.x @ self.embedder.embed([query], role="query")[0]
        best = np.argsort(-similarity)
        return Retrieved(
            passages=tuple(self.passages[i] for i in best[:k]),
            store=store,
            decision=Decision(("minilm",), (), "the only one"),
            similarity=tuple(similarity[best[:10]].tolist()),
        )


def main() -> None:
    """Collect, and tell the shares of right answers."""
    args = _arguments()
    chosen = [
        question
        for kind in (_hotpotqa, _xquad, _nqopen)
        for split, n in (("train", args.train), ("test", args.test))
        for question in _first((q for q in kind(args.folder) if q.split == split), n)
    ]
    specs = {
        spec.name: spec
        for spec in (
            ExpertSpec.model_validate(e)
            for e in yaml.safe_load(Path(demo.__file__).with_name("experts.yaml").read_text())[
                "experts"
            ]
        )
    }
    search = _search(chosen, args.folder, open_embedder(specs["minilm"]), args.out)
    asyncio.run(_collect(chosen, specs[EXPERT], search, args.out))
    _split(args.out, {q.id: q.split for q in chosen})


async def _collect(chosen: list[Question], spec: ExpertSpec, search: FlatSearch, out: Path) -> None:
    queries = [
        Query(
            id=q.id,
            prompt=Prompt.of(q.text, max_tokens=MAX_TOKENS),
            grader=Contains(answers=q.answers),
            category=q.kind,
        )
        for q in chosen
    ]
    found = search_all(queries, [STORE], search, PASSAGES)
    dispatcher = LocalDispatcher({spec.name: spec})
    try:
        with progress() as on_progress:
            print(
                await collect_columns(
                    arm_columns(queries, {spec.name: spec}, found),
                    asking_arms(dispatcher.generate),
                    out,
                    on_progress=on_progress,
                )
            )
    finally:
        await dispatcher.aclose()


def _search(chosen: list[Question], folder: Path, embedder: Embedder, out: Path) -> FlatSearch:
    """Embed the paragraphs that came with the questions; vectors are kept beside the outcomes."""
    passages = [p for question in chosen for p in question.paragraphs]
    passages += [
        piece
        for d in _lines(folder / "ir_xquad" / "corpus.jsonl.gz")
        for piece in _pieces(d["doc_id"], d["title"].replace("_", " "), d["text"])
    ]
    unique = tuple({p.text: p for p in passages}.values())
    kept = out.with_suffix(".npy")
    if kept.exists() and len(x := np.load(kept)) == len(unique):
        return FlatSearch(unique, x, embedder)
    x = embedder.embed([f"{p.title} {p.text}" for p in unique], role="passage")
    np.save(kept, x)
    return FlatSearch(unique, x, embedder)


def _hotpotqa(folder: Path) -> Iterator[Question]:
    for row in _lines(folder / "qa_hotpotqa" / "data.jsonl.gz"):
        if {a.casefold() for a in row["answers"]} & {"yes", "no"}:
            continue
        paragraphs = [
            piece
            for i, p in enumerate(row["paragraphs"])
            for piece in _pieces(f"{row['query_id']}-{i}", p["title"], p["text"])
        ]
        yield _question(row, "question", "hotpotqa", tuple(paragraphs))


def _xquad(folder: Path) -> Iterator[Question]:
    for row in _lines(folder / "ir_xquad" / "queries.jsonl.gz"):
        if row["lang"] == "en":
            yield _question(row, "text", "xquad", ())


def _nqopen(folder: Path) -> Iterator[Question]:
    for row in _lines(folder / "qa_nqopen" / "data.jsonl.gz"):
        yield _question(row, "question", "nqopen", ())


def _question(
    row: dict[str, Any], text: str, kind: str, paragraphs: tuple[Passage, ...]
) -> Question:
    return Question(
        row["query_id"], row[text], tuple(row["answers"]), kind, row["split"], paragraphs
    )


def _pieces(name: str, title: str, text: str) -> Iterator[Passage]:
    words = text.split()
    for start in range(0, max(len(words) - WORDS // 4, 1), WORDS * 3 // 4):
        yield Passage(
            id=f"{name}:{start}", text=" ".join(words[start : start + WORDS]), title=title
        )


def _first(questions: Iterator[Question], n: int) -> list[Question]:
    """Return ``n`` of them, spread over all."""
    every = list(questions)
    rows = np.random.default_rng(0).permutation(len(every))[:n]
    return [every[i] for i in sorted(rows)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _split(out: Path, split: dict[str, str]) -> None:
    rows = [row | {"split": split[row["query_id"]]} for row in read_outcomes(out)]
    write_outcomes(out, rows)
    for arm in sorted({row["expert"] for row in rows}):
        for kind in sorted({row["category"] for row in rows}):
            right = [r["quality"] for r in rows if r["expert"] == arm and r["category"] == kind]
            print(f"{arm:16} {kind:10} {np.mean([q for q in right if q is not None]):.3f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=110)
    parser.add_argument("--test", type=int, default=85)
    return parser.parse_args()


if __name__ == "__main__":
    main()
