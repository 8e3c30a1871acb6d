"""Judge a retrieval gate on queries that it was not trained on, beside what it has to beat."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from composer.gate_figures import auroc, curve_of, ece_by_luck, ece_of
from composer.gate_report import GateReport, GateRow
from composer.statistics import Interval, paired_interval
from experts_registry.errors import DataError
from experts_registry.types import FloatArray
from routers.features import window
from routers.gates.data import GateData
from routers.gates.drafting import choose, within
from routers.gates.fitting import draft_price, price_of
from routers.gates.policies import (
    Always,
    CategoryMajority,
    Never,
    Oracle,
    RandomAtRate,
    RetrievalPolicy,
    SkrKnn,
    Threshold,
)
from routers.gates.search import near
from routers.gating import Gate

__all__ = ["LAMBDAS", "evaluate_gate"]

LAMBDAS = (0.0, 0.02, 0.1)  # prices of a retrieval at which utilities are told


@dataclass(frozen=True, eq=False)
class _Asked:
    """One expert's test: shares (n, 1 + s) by policy, and what drafts cost (n,)."""

    shares: FloatArray
    paid: FloatArray
    drafts: float = 0.0


def evaluate_gate(gate: Gate, train: GateData, test: GateData) -> list[GateReport]:
    """Judge each expert's decisions.

    Args:
        gate: a trained one.
        train: what it was trained on; the baselines learn from it too.
        test: other queries, with outcomes of the same arms.

    Raises:
        DataError: the arms differ, or no test query has outcomes of all arms of an expert.
    """
    if (gate.experts, gate.stores) != (test.experts, test.stores):
        raise DataError(
            f"outcomes: of {', '.join(test.experts)} with {', '.join(test.stores)}; the gate knows "
            f"{', '.join(gate.experts)} with {', '.join(gate.stores)}"
        )
    x_train, x_test = (
        gate.encoder.embed([window(q) for q in data.queries], role="query")
        for data in (train, test)
    )
    return [_evaluated(gate, e, train, test, x_train, x_test) for e in range(len(gate.experts))]


def _evaluated(
    gate: Gate, e: int, train: GateData, test: GateData, x_train: FloatArray, x_test: FloatArray
) -> GateReport:
    full = np.flatnonzero(~np.isnan(test.quality[:, e]).any(axis=1))
    if not len(full):
        raise DataError(
            f"outcomes: expert {gate.experts[e]!r} has no test query with all arms; collect more"
        )
    test, x_test = test.select(full), x_test[full]
    chances = gate.scoring.all_chances(test, x_test, e)
    quality = test.quality[:, e]
    price = price_of(gate.state, gate.price, e)
    asked = dict(_policies(gate, e, train, test, x_train, x_test))
    gain, helps = _gain(chances), quality[:, 1:].max(axis=1) > quality[:, 0]
    known = {name: dict(_policies(gate.repriced(replace(gate.price, per_retrieval=value)), e,
                                  train, test, x_train, x_test)) for name, value in
             ((f"{v:g}", v) for v in LAMBDAS)}  # fmt: skip
    return GateReport(
        expert=gate.experts[e],
        stores=gate.stores,
        train=len(train),
        test=len(test),
        price=tuple(map(float, price)),
        verdict=gate.verdicts[e],
        band=gate.bands[e],
        rows=tuple(_rows(asked, known, quality, price, gate, e)),
        auroc=auroc(helps, gain),
        brier=tuple(float(np.mean((chances[:, a] - quality[:, a]) ** 2))
                    for a in range(quality.shape[1])),
        ece=tuple(ece_of(chances[:, a], quality[:, a]) for a in range(quality.shape[1])),
        luck=tuple(ece_by_luck(chances[:, a]) for a in range(quality.shape[1])),
        curve=curve_of(gain, quality),
        helps=float(helps.mean()),
        hurts=float((quality[:, 1:].max(axis=1) < quality[:, 0]).mean()),
    )  # fmt: skip


def _policies(
    gate: Gate, e: int, train: GateData, test: GateData, x_train: FloatArray, x_test: FloatArray
) -> Iterator[tuple[str, _Asked]]:
    """Yield what each row of the table does; the gate's own last but the oracle."""
    price = price_of(gate.state, gate.price, e)
    chances = gate.scoring.all_chances(test, x_test, e)
    drafted = gate.scoring.after_drafts(chances, test.draft[:, e], e)
    draft = draft_price(gate.state, gate.price, e)
    is_near = near(test.search, gate.state)
    chances = within(chances, is_near)
    stages = {"stage A": choose(chances, None, price, 0.0, draft)}
    if drafted is not None:
        band = gate.bands[e] or 0.2
        stages["stage A+B"] = choose(chances, drafted, price, band, draft)
    shares = {
        name: _Asked(np.eye(1 + len(gate.stores))[s.arm], s.paid, float(s.asked.mean()))
        for name, s in stages.items()
    }
    best = shares["stage A+B"] if gate.bands[e] and drafted is not None else shares["stage A"]
    if (arm := gate.verdicts[e].arm) is None:
        deployed = best
    else:
        read = np.zeros(len(test), dtype=bool) if arm == 0 else is_near[:, arm - 1]
        taken = np.where(read, arm, 0)
        deployed = _Asked(np.eye(1 + len(gate.stores))[taken], np.zeros(len(test)))
    rate = float(1 - best.shares[:, 0].mean())
    baselines: dict[str, RetrievalPolicy] = {
        "never": Never(),
        "always": Always(),
        "random at its rate": RandomAtRate(rate),
        "category majority": CategoryMajority(),
        "similarity threshold": Threshold("similarity"),
        "draft threshold": Threshold("draft"),
        "SKR-kNN": SkrKnn(),
    }
    if np.isnan(train.search[:, :, 0]).all():
        del baselines["similarity threshold"]
    if np.isnan(train.draft[:, e, 0]).all():
        del baselines["draft threshold"]
    if len(set(train.category)) < 2:
        del baselines["category majority"]
    for name, policy in baselines.items():
        fitted = policy.fit(train, x_train, e, price)
        yield name, _Asked(fitted.shares(test, x_test, e), np.zeros(len(test)))
    yield from shares.items()
    yield "deployed", deployed
    oracle = Oracle().fit(train, x_train, e, price)
    yield "oracle", _Asked(oracle.shares(test, x_test, e), np.zeros(len(test)))


def _rows(
    asked: dict[str, _Asked], known: dict[str, dict[str, _Asked]], quality: FloatArray,
    price: FloatArray, gate: Gate, e: int,
) -> Iterator[GateRow]:  # fmt: skip
    one = np.zeros(len(quality), dtype=np.intp)
    of = {name: (a.shares * quality).sum(axis=1) for name, a in asked.items()}
    oracle = _utility(asked["oracle"], quality, price)
    helps = quality[:, 1:] > quality[:, :1]  # (n, s)
    for name, a in asked.items():
        retrieved = a.shares[:, 1:]
        hit = (retrieved * helps).sum()
        rate = float(retrieved.sum(axis=1).mean())
        mean = float(of[name].mean())
        wanted = helps.any(axis=1)
        right = np.where(wanted, retrieved.sum(axis=1), a.shares[:, 0])
        yield GateRow(
            policy=name,
            quality=mean,
            rate=rate,
            drafts=a.drafts,
            to_always=paired_interval(of[name] - of["always"], one),
            to_never=paired_interval(of[name] - of["never"], one),
            to_random=None if name != "deployed" else _to_random(a, quality, one),
            precision=float(hit / retrieved.sum()) if retrieved.sum() else None,
            recall=float(hit / wanted.sum()) if wanted.any() else None,
            accuracy=float(right.mean()),
            regret=float((oracle - _utility(a, quality, price)).mean()),
            per_retrieval=(mean - float(of["never"].mean())) / rate if rate else None,
            utility={
                value: float(_utility(policies[name], quality, _priced(gate, e, value)).mean())
                for value, policies in known.items()
                if name in policies
            },
        )


def _to_random(a: _Asked, quality: FloatArray, one: np.ndarray) -> Interval:
    """Compare with taking the same arms as often, whatever is asked."""
    random = (a.shares.mean(axis=0) * quality).sum(axis=1)
    return paired_interval((a.shares * quality).sum(axis=1) - random, one)


def _priced(gate: Gate, e: int, per_retrieval: str) -> FloatArray:
    price = replace(gate.price, per_retrieval=float(per_retrieval))
    return price_of(gate.state, price, e)


def _utility(a: _Asked, quality: FloatArray, price: FloatArray) -> FloatArray:
    """Return quality less price of each query, (n,)."""
    found: FloatArray = (a.shares * (quality - np.append(0.0, price))).sum(axis=1) - a.paid
    return found


def _gain(chances: FloatArray) -> FloatArray:
    gain: FloatArray = chances[:, 1:].max(axis=1) - chances[:, 0]
    return gain
