"""Teach a saved router experts that came after its training, from a few probes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experts_registry.errors import ArtefactError, DataError
from experts_registry.registry import Registry
from experts_registry.types import Embedder
from routers.base import load_router
from routers.data import RoutingDataset

__all__ = ["Adopted", "adopt_saved"]


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What a router expects of a newcomer now.

    Args:
        expert: its name.
        probes: graded queries that were known of it.
        quality: mean predicted quality on these; None without any.
        error: mean standard error of that.
    """

    expert: str
    probes: int
    quality: float | None
    error: float | None


def adopt_saved(
    path: Path,
    encoder: Embedder,
    data: RoutingDataset,
    registry: Registry,
    *,
    known: RoutingDataset | None = None,
) -> list[Adopted]:
    """Add the experts of these outcomes that the router was not fitted on, and save it again.

    Declared domains and published scores come from the registry.

    Args:
        path: folder of the router.
        encoder: that it was fitted with.
        data: outcomes of the newcomers.
        registry: that names them.
        known: outcomes of the other experts; where they hold the same queries, they tell how hard
            these were, which makes twenty probes worth about thirty.

    Raises:
        ArtefactError: the folder holds no router, or one that adopted an expert which these
            outcomes do not have.
        DataError: the router was fitted on every expert of these outcomes.
    """
    router = load_router(path, encoder=encoder)
    new = [name for name in data.experts if name not in router.experts_]
    if not new:
        raise DataError(
            f"{path}: was fitted on every expert of these outcomes; "
            "collect some of a new one with 'expert-composer collect --expert NAME'"
        )
    if lost := [name for name in router.newcomers_ if name not in new]:
        raise ArtefactError(
            f"{path}: adopted {', '.join(lost)} before, of which these outcomes hold nothing; "
            "give the probes of all newcomers together"
        )
    specs = {name: registry.llms[name] for name in new if name in registry.llms}
    adopted = router.adopt(
        data if known is None else _beside(data, known),
        domains={name: spec.domains for name, spec in specs.items()},
        published={name: spec.published for name, spec in specs.items()},
    )
    adopted.save(path)
    found = adopted.predict(data.queries, experts=new)
    results = []
    for i, name in enumerate(new):
        rows = np.flatnonzero(~np.isnan(data.quality[:, data.experts.index(name)]))
        is_known = len(rows) > 0
        results.append(
            Adopted(
                expert=name,
                probes=len(rows),
                quality=float(found.quality[rows, i].mean()) if is_known else None,
                error=float(found.error[rows, i].mean()) if is_known else None,
            )
        )
    return results


def _beside(probes: RoutingDataset, known: RoutingDataset) -> RoutingDataset:
    """Return the probes with what the other experts answered to the same queries."""
    others = [name for name in known.experts if name not in probes.experts]
    row = {query: i for i, query in enumerate(known.queries)}
    found = [row.get(query, -1) for query in probes.queries]
    answers = np.vstack([known.columns(others), np.full(len(others), np.nan)])[found]
    return replace(
        probes,
        experts=(*probes.experts, *others),
        quality=np.hstack([probes.quality, answers]),
        cost=np.hstack([probes.cost, np.full(answers.shape, np.nan)]),
    )
