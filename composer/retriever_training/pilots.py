"""Let a trained pilot router know a new retriever, from the queries it was judged on.

As in section 4.4 of RouterRetriever (Lee et al., arXiv 2409.02685), every retriever is scored on
the new domain only and nothing is trained. Unlike there, the queries are those held out: on what
it was trained on, an expert looks better than it is.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from composer.opened import Opened
from composer.pilots import load_pilots
from composer.retriever_training.judging import ndcg
from composer.retriever_training.material import Material
from composer.retriever_training.training import Trained
from experts_registry.registry import Registry
from experts_registry.types import Embedder, FloatArray
from routers.data import RoutingDataset

__all__ = ["adopted_by", "scores"]


def adopted_by(
    registry: Registry, opened: Opened, name: str, material: Material, trained: Trained
) -> list[Path]:
    """Teach the routers of the stores that name a retriever, and save them; return their folders.

    Args:
        registry: names the retriever.
        opened: of the same file.
        name: of the retriever.
        material: that it was judged on.
        trained: how.

    Raises:
        ArtefactError: a router does not fit its encoder.
    """
    taught: list[Path] = []
    for store in registry.stores.values():
        folder = None if store.router is None else registry.resolve(store.router)
        if name not in store.retrievers or folder is None or folder in taught:
            continue
        if not (folder / "router.json").exists():
            continue
        router = load_pilots(folder, registry, opened.embedder)
        known = [one for one in router.experts_ if one in registry.retrievers and one != name]
        domain = (*registry.retrievers[name].domains, name)[0]
        data = scores(opened, [*known, name], material, trained, domain)
        router.adopt(data).save(folder)
        taught.append(folder)
    return taught


def scores(
    opened: Opened, names: Sequence[str], material: Material, trained: Trained, domain: str
) -> RoutingDataset:
    """Return nDCG@10 of retrievers on the held-out queries, as outcomes."""
    held = trained.parts.held
    queries = [material.queries[i] for i in held]
    relevant = [material.relevant[i] for i in held]
    vectors = {trained.base_digest: trained.vectors}
    columns = []
    for name in names:
        embedder = opened.embedder(name)
        passages = _passages(embedder, material, vectors)
        columns.append(ndcg(embedder.embed(queries, role="query"), passages, relevant))
    return RoutingDataset(
        queries=tuple(queries),
        experts=tuple(names),
        quality=np.clip(np.column_stack(columns), 0.0, 1.0),  # rounding
        category=(domain,) * len(queries),
        # By their texts: a router passes over what it knows, and other material has other rows.
        ids=tuple(
            f"{domain}/{sha256(query.encode('utf-8', 'replace')).hexdigest()[:16]}"
            for query in queries
        ),
        cost_unit="",
    )


def _passages(embedder: Embedder, material: Material, vectors: dict[str, FloatArray]) -> FloatArray:
    """Return the vectors of all passages; those of retrievers that embed them alike are shared."""
    digest = str(getattr(embedder, "passage_digest", embedder.digest))
    if digest not in vectors:
        vectors[digest] = embedder.embed(material.passages, role="passage")
    return vectors[digest]
