"""Train a saved router again with feedback; replace it only where the new one is not worse.

The queries that the old router was not fitted on stay held out: both routers are judged on them,
query by query, and no feedback on a query that is, or nearly is, one of them is learned from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from composer.contenders import best_columns
from composer.feedback import Feedback, outcome_rows, query_digest
from composer.replacing import alone, previous_of, swap, workshop
from composer.statistics import FEWEST, Interval, bootstrap, interval, macro_weights, verdict
from composer.training import train
from experts_registry.errors import ArtefactError, DataError
from experts_registry.types import Embedder, FloatArray
from routers.base import Router, load_router
from routers.data import RoutingDataset
from routers.splits import find_leaks

__all__ = ["Judgement", "Retrained", "merged", "retrain", "roll_back"]

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Judgement:
    """Two routers on the same held-out queries.

    Args:
        queries: their number.
        old: mean quality of the old router over the categories' means.
        new: that of the new one.
        interval: 95 % bootstrap interval of new less old, in pairs.
    """

    queries: int
    old: float
    new: float
    interval: Interval

    @property
    def is_acceptable(self) -> bool:
        """Whether the new one is not significantly worse; on few queries, whether not lower."""
        if self.queries < FEWEST:  # nothing would be significant
            return self.new >= self.old
        return verdict(self.interval, self.queries) != "worse"

    def __str__(self) -> str:
        told = f"quality {self.new:.3f} against {self.old:.3f} on {self.queries} held-out queries"
        if self.queries < FEWEST:
            return f"{told}, too few for an interval"
        low, high = self.interval.low, self.interval.high
        return f"{told}, difference {self.new - self.old:+.3f} [{low:+.3f}, {high:+.3f}]"


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """What came of a retraining.

    Args:
        path: folder of the router.
        is_replaced: whether it holds the new router now.
        judgement: of both routers.
        feedback: grades that were given.
        learned: (query, expert) cells of feedback that the new router was given to learn from.
        previous: folder of the router that was replaced; None where none was.
    """

    path: Path
    is_replaced: bool
    judgement: Judgement
    feedback: int
    learned: int
    previous: Path | None = None


def retrain(
    path: Path,
    encoder: Embedder,
    outcomes: RoutingDataset,
    feedback: Sequence[Feedback],
    *,
    force: bool = False,
) -> Retrained:
    """Fit a saved router's class anew, same hyperparameters, on its outcomes and on feedback.

    Args:
        path: folder of the saved router; it is replaced as a whole, and the old one is kept
            beside it as ``<name>.previous``.
        encoder: the one that it was fitted with.
        outcomes: those that it was trained from.
        feedback: what was said since.
        force: replace it even where the new one is significantly worse.

    Raises:
        ArtefactError: there is no such router, or it was not trained on part of these outcomes.
        DataError: there is no feedback, no complete held-out query, or another retrain runs; or
            an adopted expert would be forgotten.
    """
    old = load_router(path, encoder=encoder)
    if not feedback:
        raise DataError("feedback: there is none to learn from; give some first")
    fitted, held = _parts(path, old, outcomes)
    usable = _usable(held, feedback)
    table = merged(fitted, usable)
    if (lost := [n for n in old.newcomers_ if n not in table.experts]) and not force:
        raise DataError(
            f"{path}: adopted {', '.join(lost)}, which neither the outcomes nor the feedback hold, "
            "so that a new router would not know it; add its probes to the outcomes, or use "
            "--force and adopt it again"
        )
    fresh = type(old)(**{f.name: getattr(old, f.name) for f in fields(old) if f.init})
    with alone(path), workshop(path) as draft:
        keep = "rehearsal.x" in old.state_
        new = train(fresh, _joined(table, held), draft, keep_queries=keep).router
        judgement = _judged(old, new, held)
        is_replaced = force or judgement.is_acceptable
        return Retrained(
            path=path,
            is_replaced=is_replaced,
            judgement=judgement,
            feedback=len(feedback),
            learned=len(outcome_rows(usable)),
            previous=swap(path, draft) if is_replaced else None,
        )


def roll_back(path: Path) -> Path:
    """Put the previous router back; the present one becomes the previous. Return the folder.

    Raises:
        ArtefactError: there is none.
    """
    previous = previous_of(path)
    if not (previous / "router.json").exists():
        raise ArtefactError(f"{previous}: holds no router, so there is nothing to go back to")
    with alone(path), workshop(path) as draft:
        previous.rename(draft)
        swap(path, draft)
    return path


def merged(outcomes: RoutingDataset, feedback: Sequence[Feedback]) -> RoutingDataset:
    """Return outcomes with feedback added: cells, queries and experts.

    A cell that has both a grade and feedback gets their mean. A new query has the category that
    the decision took it for, where the outcomes know it.
    """
    rows = outcome_rows(feedback)
    experts = (*outcomes.experts, *sorted({r["expert"] for r in rows} - set(outcomes.experts)))
    known = {query_digest(query) for query in outcomes.queries}
    new = {r["query_id"]: r for r in rows if r["query_id"] not in known}
    queries = (*outcomes.queries, *(row["query"] for row in new.values()))
    labels = [row["category"] or "" for row in new.values()]
    place = {query_digest(query): i for i, query in reversed([*enumerate(queries)])}
    quality, cost = (np.full((len(queries), len(experts)), np.nan) for _ in range(2))
    n, m = outcomes.quality.shape
    quality[:n, :m], cost[:n, :m] = outcomes.quality, outcomes.cost
    column = {"usd": "cost_usd", "s": "seconds"}.get(outcomes.cost_unit)
    for row in rows:
        cell = place[row["query_id"]], experts.index(row["expert"])
        quality[cell] = np.nanmean([quality[cell], row["quality"]])
        if column and np.isnan(cost[cell]) and row[column] is not None:
            cost[cell] = row[column]
    return replace(
        outcomes,
        queries=queries,
        experts=experts,
        quality=quality,
        cost=cost,
        category=(*outcomes.category, *(c if c in outcomes.categories else "" for c in labels)),
        ids=(*outcomes.ids, *(f"feedback-{name}" for name in new)),
        split=(*outcomes.split, *[""] * len(new)),
    )


# -- data -----------------------------------------------------------------------------------------


def _parts(
    path: Path, old: Router, outcomes: RoutingDataset
) -> tuple[RoutingDataset, RoutingDataset]:
    """Return the outcomes that the old router was fitted on, and those that are unlike them."""
    seen = set(old.lineage_.get("seen", ()))
    is_seen = np.array([query_digest(query) in seen for query in outcomes.queries])
    if not is_seen.any() or is_seen.all():
        which = "all" if is_seen.any() else "none"
        raise ArtefactError(
            f"{path}: was trained on {which} of these queries; give the outcomes that it was "
            "trained from, of which it held some out"
        )
    fitted, rest = outcomes.select(is_seen), outcomes.select(~is_seen)
    leaked = [leak.test for leak in find_leaks(fitted.queries, rest.queries)]
    return fitted, rest.select(np.setdiff1d(np.arange(len(rest)), leaked))


def _usable(held: RoutingDataset, feedback: Sequence[Feedback]) -> list[Feedback]:
    """Return the feedback on queries that are unlike all held-out ones."""
    asked = sorted({f.query for f in feedback})
    alike = {asked[leak.test] for leak in find_leaks(held.queries, asked)}
    if usable := [f for f in feedback if f.query not in alike]:
        return usable
    raise DataError("feedback: all of it is on held-out queries; there is nothing to learn from")


def _joined(data: RoutingDataset, held: RoutingDataset) -> RoutingDataset:
    """Return training rows and held-out ones as one table that says which is which."""
    empty = np.full((len(held), len(data.experts)), np.nan)
    quality, cost = empty.copy(), empty.copy()
    m = len(held.experts)  # the experts that only feedback knows stand behind these
    quality[:, :m], cost[:, :m] = held.quality, held.cost
    return replace(
        data,
        queries=data.queries + held.queries,
        quality=np.vstack([data.quality, quality]),
        cost=np.vstack([data.cost, cost]),
        category=data.category + held.category,
        ids=data.ids + held.ids,
        split=("train",) * len(data) + ("test",) * len(held),
    )


# -- judgement ------------------------------------------------------------------------------------


def _judged(old: Router, new: Router, held: RoutingDataset) -> Judgement:
    """Return the new router less the old one on the queries where every outcome is known."""
    tried = np.flatnonzero((~np.isnan(held.quality)).any(axis=0))
    complete = held.only([held.experts[i] for i in tried])
    complete = complete.select(np.flatnonzero(~np.isnan(complete.quality).any(axis=1)))
    if not len(complete):
        raise DataError("outcomes: no held-out query has an outcome of every expert")
    old_reached, new_reached = _reached(old, complete), _reached(new, complete)
    weight = macro_weights(complete.labels)  # every category counts the same, as in a report
    difference = (new_reached - old_reached)[:, None]
    found = interval(bootstrap(difference, complete.labels, _RESAMPLES, seed=0)[:, 0])
    before, after = float(weight @ old_reached), float(weight @ new_reached)
    return Judgement(len(complete), before, after, found)


def _reached(router: Router, data: RoutingDataset) -> FloatArray:
    """Return the quality (n,) of the experts that a router chooses."""
    choice = best_columns(router.predict(data.queries, experts=data.experts))
    reached: FloatArray = data.quality[np.arange(len(data)), choice]
    return reached
