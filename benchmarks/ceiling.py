"""How much better than the category table could any router on these embeddings be?

    python benchmarks/ceiling.py [FOLDER] [--tables routing_mmlupro routing_zeroeval]

Four figures per table, on its own held-out queries. The learning curve: AIQ of `auto` after a
quarter, half and all of the training queries; where it is flat, more of them would not help. The
share of what separates experts on a query (double-centred variance of the outcomes) that the
predictions explain. For how many queries the category is recognised. And the Bayes estimate: if the
predictions, which are shrunken means over similar queries, were the truth, what would following
them gain over the table?
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from category_router import CachedEncoder
from peers.encoders import minilm
from peers.known import KnownEncoder
from peers.tables import load_table

from composer.contenders import baselines, follow
from composer.tradeoff import aiq
from experts_registry.types import FloatArray
from routers.auto import AutoRouter
from routers.linear import centred
from routers.splits import split


def main() -> None:
    """Print one block per table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    beside = os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(beside), help="shared data")
    parser.add_argument("--tables", nargs="+", default=["routing_mmlupro", "routing_zeroeval"])
    args = parser.parse_args()
    encoder = CachedEncoder(minilm())
    for name in args.tables:
        data = load_table(args.folder / name)
        known = KnownEncoder.of(data, encoder)
        parts = split(data)
        order = np.random.default_rng(0).permutation(len(parts.train))
        table = next(b for b in baselines(parts.train, parts.test) if b.name == "category table")
        print(f"{name}: category table AIQ {aiq(table, parts.test):.4f}")
        for share in (0.25, 0.5, 1.0):
            seen = parts.train.select(np.sort(order[: int(share * len(order))]))
            router = AutoRouter(encoder=known).fit(seen)
            z = router.embed(parts.test.queries)
            found = router.predict_embedded(z, experts=parts.test.experts)
            area = aiq(follow("auto", router, z, parts.test), parts.test)
            explained = _explained(parts.test.quality, found.quality)
            print(f"  {len(seen):5} training queries: AIQ {area:.4f}, explains {explained:.2%}")
        likeliest = [router.explain(q).details.get("category") for q in parts.test.queries]
        hits = np.mean([a == b for a, b in zip(likeliest, parts.test.category, strict=True)])
        print(f"  the category, which the table is told, is recognised for {hits:.0%}")
        believed = replace(parts.test, quality=np.clip(found.quality, 0, 1))
        ours = follow("auto", router, z, believed)
        theirs = next(b for b in baselines(parts.train, believed) if b.name == "category table")
        gain = (aiq(ours, believed) or 0) - (aiq(theirs, believed) or 0)
        print(f"  if the predictions were the truth, auto less the table: {gain:+.4f} in AIQ")


def _explained(quality: FloatArray, predicted: FloatArray) -> float:
    """Return 1 - (squared error of the differences between experts) / (their variance)."""
    known = ~np.isnan(quality)
    apart = centred(quality - quality.mean(axis=0), known)
    error = apart - centred(predicted - quality.mean(axis=0), known)
    return 1 - float((error**2).sum() / (apart**2).sum())


if __name__ == "__main__":
    main()
