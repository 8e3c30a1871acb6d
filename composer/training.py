"""From outcomes to a saved router that was judged on queries it had not seen."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from composer.audit import Finding, audit, audit_tokens
from composer.evaluation import Advance, evaluate
from composer.report import Report
from composer.study import Guarding, Plan, study
from experts_registry.errors import ArtefactError, DataError, unknown_name
from experts_registry.types import Embedder, FloatArray
from routers.base import Router, load_router
from routers.data import RoutingDataset
from routers.encoding import CachedEncoder
from routers.guard import Guard
from routers.splits import find_leaks, split

__all__ = ["GUARDED", "Trained", "audit_outcomes", "evaluate_saved", "require_sound", "train"]

GUARDED = "router with guard"


@dataclass(frozen=True)
class Trained:
    """A fitted router, how it did on held-out queries, and where it was saved."""

    router: Router
    report: Report
    path: Path


def train(
    router: Router,
    data: RoutingDataset,
    out: Path,
    *,
    test: float = 0.2,
    seed: int = 0,
    baseline: str | None = None,
    keep_queries: bool = False,
    findings: Sequence[Finding] | None = None,
    advance: Advance = lambda what: None,
) -> Trained:
    """Fit on part of the outcomes, rehearse, evaluate on the rest, save router and report.

    Args:
        router: not fitted yet.
        data: outcomes; their own split is kept where they carry one.
        out: folder for ``router.json``, ``state.safetensors`` and ``report.json``.
        test: share of the queries that is held out.
        seed: of the split.
        baseline: the pinned expert; the report shows the router with and without its guard.
        keep_queries: keep the embedded queries, which re-mixing by neighbours needs.
        findings: of the audits, where they were made before; by default they are made here.
        advance: called after each of three steps: fit, rehearsal, control.

    Raises:
        DataError: an audit found that nothing can be learned, or too few outcomes to hold any out.
    """
    _make_folder(out)  # before the work, not after it
    if baseline is not None and baseline not in data.experts:
        raise unknown_name("baseline", baseline, data.experts)
    findings = audit(data) if findings is None else findings
    require_sound(findings)
    parts = split(data, test=test, seed=seed)
    z = router.embed(parts.train.queries)
    router.fit_embedded(z, parts.train)
    advance("fit")
    router.rehearse(parts.train, z=z, keep=keep_queries)
    advance("rehearsal")
    report = evaluate(
        {"router": router} | ({} if baseline is None else {GUARDED: router}),
        parts.train,
        parts.test,
        baseline=baseline,
        transforms={} if baseline is None else {GUARDED: [guard(router, baseline)]},
        advance=advance,
    )
    report = replace(report, findings=tuple(findings))
    router.lineage_["seen"] = sorted(map(_mark, parts.train.queries))
    router.save(out)
    (out / "report.json").write_text(json.dumps(report.to_json(), indent=1))
    return Trained(router, report, out)


def guard(router: Router, baseline: str) -> Guard:
    """Return the guard of a router that rehearsed, as a composition with a baseline has it."""
    weight = router.cost_weight
    return Guard.fit(router.state_, router.experts_, baseline, cost_weight=weight)


def _guarding(baseline: str) -> Guarding:
    """Return what lets a fitted router rehearse, and makes its guard."""

    def make(router: Router, z: FloatArray, data: RoutingDataset) -> Sequence[Guard]:
        if baseline not in router.experts_:
            return ()
        return [guard(router.rehearse(data, z=z), baseline)]

    return make


def audit_outcomes(path: Path, data: RoutingDataset) -> tuple[Finding, ...]:
    """Return what is wrong with outcomes, and with the token counts of the file they came from."""
    return (*audit(data), *audit_tokens(path))


def require_sound(findings: Sequence[Finding]) -> None:
    """Refuse outcomes that nothing can be learned from.

    Raises:
        DataError: with the first error among the findings.
    """
    for finding in findings:
        if finding.severity == "error":
            raise DataError(f"outcomes: {finding.message}")


def evaluate_saved(
    paths: Path | Sequence[Path],
    encoder: Embedder,
    data: RoutingDataset,
    *,
    plan: Plan | None = None,
    baseline: str | None = None,
    findings: Sequence[Finding] = (),
    advance: Advance = lambda what: None,
) -> Report:
    """Evaluate saved routers on the queries of these outcomes that none was fitted on.

    Args:
        paths: folders of trained routers; the report's figures stand for the first.
        encoder: that they were trained with.
        data: the outcomes that they were trained from.
        plan: how often to fit them anew, on which parts of the data; not at all by default.
        baseline: the pinned expert that a router must never be significantly below.
        findings: of the audits; they go into the report.
        advance: called after every fit.

    Raises:
        ArtefactError: one was fitted on all of these queries, or on none.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    cached = CachedEncoder(encoder)
    routers = {
        name: load_router(path, encoder=cached)
        for name, path in zip(_names(paths), paths, strict=True)
    }
    train, rest = _unseen(paths, list(routers.values()), data)
    leaked = {leak.test for leak in find_leaks(train.queries, rest.queries)}
    test = rest.select([i for i in range(len(rest)) if i not in leaked])
    guarded = {
        f"{name} with guard": router
        for name, router in routers.items()
        if baseline in router.experts_ and "rehearsal.held" in router.state_
    }
    report = evaluate(
        routers | guarded,
        train,
        test,
        baseline=baseline,
        transforms={name: [guard(router, str(baseline))] for name, router in guarded.items()},
        advance=advance,
    )
    if plan and baseline is not None:
        plan = replace(plan, guard=_guarding(baseline))
    found = study(routers, data, plan, advance=advance) if plan else None
    return replace(report, findings=tuple(findings), study=found)


def _names(paths: Sequence[Path]) -> list[str]:
    """Name routers by their folders; a single one is the router."""
    if len(paths) == 1:
        return ["router"]
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _unseen(
    paths: Sequence[Path], routers: Sequence[Router], data: RoutingDataset
) -> tuple[RoutingDataset, RoutingDataset]:
    """Return the queries that all routers were fitted on, and those that none was."""
    marks = [_mark(query) for query in data.queries]
    seen = np.array([[m in set_ for m in marks] for set_ in map(_seen, routers)])  # (routers, n)
    for path, row in zip(paths, seen, strict=True):
        if not row.any() or row.all():
            which = "all" if row.any() else "none"
            raise ArtefactError(
                f"{path}: was trained on {which} of these queries, so the baselines or the test "
                "would have no query; evaluate with the outcomes that it was trained from, or "
                "train again"
            )
    common, fresh = np.flatnonzero(seen.all(axis=0)), np.flatnonzero(~seen.any(axis=0))
    if not len(common) or not len(fresh):
        raise ArtefactError(
            f"{paths[0]}: was trained on other queries than {paths[-1]}; train both with the same "
            "--seed and --test"
        )
    return data.select(common), data.select(fresh)


def _seen(router: Router) -> set[str]:
    return set(router.lineage_.get("seen", ()))


def _mark(query: str) -> str:
    """Identify a query, so that a router knows which ones it has seen."""
    return sha256(query.encode("utf-8", "replace")).hexdigest()[:16]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "report.json").touch()
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be written ({error.strerror}); use --out") from error
