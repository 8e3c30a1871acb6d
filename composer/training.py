"""From outcomes to a saved router that was judged on queries it had not seen."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from composer.evaluation import evaluate
from composer.report import Report
from experts_registry.errors import ArtefactError
from experts_registry.types import Embedder
from routers.base import Router, load_router
from routers.data import RoutingDataset
from routers.splits import find_leaks, split

__all__ = ["Trained", "evaluate_saved", "train"]


@dataclass(frozen=True)
class Trained:
    """A fitted router, how it did on held-out queries, and where it was saved."""

    router: Router
    report: Report
    path: Path


def train(
    router: Router, data: RoutingDataset, out: Path, *, test: float = 0.2, seed: int = 0
) -> Trained:
    """Fit on part of the outcomes, evaluate on the rest, save router and report.

    Args:
        router: not fitted yet.
        data: outcomes; their own split is kept where they carry one.
        out: folder for ``router.json``, ``state.safetensors`` and ``report.json``.
        test: share of the queries that is held out.
        seed: of the split.

    Raises:
        DataError: there are too few outcomes to hold any out.
    """
    _make_folder(out)  # before the work, not after it
    parts = split(data, test=test, seed=seed)
    router.fit(parts.train)
    report = evaluate(router, parts.train, parts.test)
    router.lineage_["seen"] = sorted(map(_mark, parts.train.queries))
    router.save(out)
    (out / "report.json").write_text(json.dumps(report.to_json(), indent=1))
    return Trained(router, report, out)


def evaluate_saved(path: Path, encoder: Embedder, data: RoutingDataset) -> Report:
    """Evaluate a saved router on the queries of these outcomes that it was not fitted on.

    Raises:
        ArtefactError: it was fitted on all of these queries, or on none.
    """
    router = load_router(path, encoder=encoder)
    seen = set(router.lineage_.get("seen", ()))
    is_seen = np.array([_mark(query) in seen for query in data.queries])
    if not is_seen.any() or is_seen.all():
        which = "all" if is_seen.any() else "none"
        raise ArtefactError(
            f"{path}: was trained on {which} of these queries, so the baselines or the test would "
            "have no query; evaluate with the outcomes that it was trained from, or train again"
        )
    train, rest = data.select(is_seen), data.select(~is_seen)
    leaked = {leak.test for leak in find_leaks(train.queries, rest.queries)}
    return evaluate(router, train, rest.select([i for i in range(len(rest)) if i not in leaked]))


def _mark(query: str) -> str:
    """Identify a query, so that a router knows which ones it has seen."""
    return sha256(query.encode("utf-8", "replace")).hexdigest()[:16]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "report.json").touch()
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be written ({error.strerror}); use --out") from error
