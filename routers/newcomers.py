"""An expert that came after the training: what it is expected to be worth, from little.

A Bayesian linear model over what the router already knows. With p (n, m) the predicted quality of
the fitted experts, pbar (n,) their mean and D (n, c) the shares of the categories,

    q_new(x) = pbar(x) + b + a (pbar(x) - mean) + D(x) d + (p(x) - pbar(x)) w

Before any outcome all coefficients are 0 on average: the newcomer is as good as the others are on
the query, or as others of its price are. How far they may lie from 0 is read off the fitted
experts (empirical Bayes). A category it is meant for, or a published score, moves the prior; each
probe then moves the posterior:

    w | probes ~ N(w0 + S G'r / s2, S),  S = (V^-1 + G'G / s2)^-1,  r = q - pbar - G w0

Where it is known how the fitted experts did on a probe, S_e, what all of them found hard or easy
beyond what was predicted is no merit of the newcomer: a control variate (Lavenberg and Welch,
Management Science 27, 1981), which leaves two thirds of the noise,

    r = q - pbar - l (Sbar - pbar) - G w0,   l by regression of each fitted expert on the others.

No fitted expert's score is touched, so taking a newcomer away again is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.data import RoutingDataset
from routers.prior import PRIOR_ERROR
from routers.ridge import fit_ridge
from routers.table import fit_table

__all__ = ["CAUTION", "Expected", "fit_newcomers", "predict_newcomers", "prepare_newcomers"]

OVERALL = "overall"
_PENALTY = 3.0
_LEAST_SPREAD = 0.05  # standard deviation of a newcomer's mean quality, at the least
_LIKENESS = 0.1  # variance of its likeness to any one expert, times how many there are
_DOMAIN_SPREAD = 0.03  # of its strength on a category beyond that, at the least
_PUBLISHED_ERROR = 0.1  # a published score was measured on other prompts, with another template
CAUTION = 0.5  # standard errors by which a newcomer must be better: few probes flatter by luck
_ENOUGH = 0.5  # share of the fitted experts that must have answered a probe, to say how hard it is
_FEWEST_PRICED = 5  # experts from which price is believed to tell anything
_DECLARED = 0.5  # share of the gap from mean to best that a declared category promises


@dataclass(frozen=True, eq=False)
class Expected:
    """Quality, its standard error and cost of the newcomers, each (n, k)."""

    quality: FloatArray
    error: FloatArray
    cost: FloatArray


def prepare_newcomers(z: FloatArray, data: RoutingDataset) -> dict[str, FloatArray]:
    """Return what is kept at fit time: a model of the categories, levels and spreads."""
    c = len(data.categories)
    labelled = data.labels >= 0
    found = fit_ridge(z[labelled], np.eye(c)[data.labels[labelled]], _PENALTY)
    known = ~np.isnan(data.quality)
    mean = np.where(known, data.quality, 0).sum(axis=0) / known.sum(axis=0)  # (m,)
    table = fit_table(data.quality, data.labels, c).quality if c else np.zeros((0, len(mean)))
    beyond = table - table.mean(axis=1, keepdims=True) - (mean - mean.mean())
    spread = [max(float(mean.std()), _LEAST_SPREAD)]
    spread += [max(float(beyond.std()), _DOMAIN_SPREAD) if c else _DOMAIN_SPREAD]
    noise = np.where(known, (data.quality - mean) ** 2, 0).sum() / known.sum()
    return {
        "newcomer.domain": found.weight,
        "newcomer.bias": found.intercept,
        "newcomer.level": np.append(table.mean(axis=1), mean.mean()),  # (c + 1,)
        "newcomer.best": table.max(axis=1, initial=0),  # (c,)
        "newcomer.spread": np.array([*spread, max(float(noise), 0.01)]),
        "newcomer.shared": np.array(_shared(np.where(known, data.quality - mean, 0), known)),
    }


def _shared(residual: FloatArray, known: NDArray[np.bool_]) -> tuple[float, float]:
    """Return l of an expert's residuals (n, m) on the others' mean, and the share left by it."""
    count = known.sum(axis=1, keepdims=True)
    usable = known & (count > 1)
    others = (residual.sum(axis=1, keepdims=True) - residual) / np.maximum(count - 1, 1)
    own, others = residual[usable], others[usable]
    slope = float(own @ others / max(float(others @ others), 1e-12))
    if slope <= 0:
        return 0.0, 1.0
    left = float(((own - slope * others) ** 2).sum() / max(float(own @ own), 1e-12))
    return slope, max(left, 0.1)


def fit_newcomers(
    p: FloatArray,
    z: FloatArray,
    data: RoutingDataset,
    answers: FloatArray,
    state: Mapping[str, FloatArray],
    categories: Sequence[str],
    domains: Mapping[str, Sequence[str]],
    published: Mapping[str, Mapping[str, float]],
    *,
    cost_unit: str,
    stay: Sequence[int] = (),
) -> dict[str, FloatArray]:
    """Return the state arrays ``newcomer.mean`` (k, g), ``.variance`` (k, g, g), ``.cost`` (k,).

    Args:
        p: (n, m) predicted quality of the fitted experts on the probes.
        z: (n, d) the probes.
        data: outcomes of the k newcomers on the probes; n may be 0.
        answers: (n, m) outcomes of the fitted experts on the probes; NaN where unknown.
        state: of the router.
        categories: that the router knows.
        domains: expert -> categories that it is meant for; unknown ones are passed over.
        published: expert -> category or ``overall`` -> score.
        cost_unit: of the router; a cost in another unit is as good as unknown.
        stay: newcomers of before that come first.
    """
    m = len(state["prior.mean"])
    easy, noise = _easy(p, answers, state)
    design = _design(p, z, state) if len(data) else np.zeros((0, 2 + len(categories) + m))
    mean, variance, cost = [], [], []
    for i, name in enumerate(data.experts):
        paid = data.cost[~np.isnan(data.cost[:, i]), i] if data.cost_unit == cost_unit else ()
        cost.append(float(np.mean(paid)) if len(paid) else np.nan)
        level = _by_price(cost[-1], state)
        said = _checked(name, published.get(name, {}))
        prior, spread = _prior(level, state, categories, domains.get(name, ()), said)
        rows = ~np.isnan(data.quality[:, i])
        g = design[rows]
        weighed = g / noise[rows, None]
        variance.append(np.linalg.inv(np.diag(1 / spread) + weighed.T @ g))
        if not rows.any():
            mean.append(prior)
            continue
        left = data.quality[rows, i] - p[rows].mean(axis=1) - easy[rows] - g @ prior
        mean.append(prior + variance[-1] @ (weighed.T @ left))
    found = {"mean": mean, "variance": variance, "cost": cost}
    new = {f"newcomer.{k}": np.array(v, dtype=np.float32) for k, v in found.items()}
    return {k: np.array([*(state[k][i] for i in stay), *v]) for k, v in new.items()}


def _easy(
    p: FloatArray, answers: FloatArray, state: Mapping[str, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return by how much each probe was easier than predicted, and the noise that is left (n,)."""
    noise = float(state["newcomer.spread"][2])
    slope, left = state["newcomer.shared"].tolist()
    known = ~np.isnan(answers)
    enough = known.mean(axis=1) >= _ENOUGH if answers.size else np.zeros(len(answers), dtype=bool)
    beyond = np.where(known, answers - p, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(enough, slope * beyond, 0), np.where(enough, left * noise, noise)


def predict_newcomers(p: FloatArray, z: FloatArray, state: Mapping[str, FloatArray]) -> Expected:
    """Return what is expected of the newcomers, given the fitted experts' quality p (n, m)."""
    design = _design(p, z, state)
    quality = p.mean(axis=1, keepdims=True) + design @ state["newcomer.mean"].T
    # As products of matrices: for one query an einsum takes longer to plan than to compute.
    square = ((design @ state["newcomer.variance"]) * design).sum(axis=2).T  # (n, k)
    cost = np.broadcast_to(state["newcomer.cost"], quality.shape)
    error = np.minimum(np.sqrt(np.maximum(square, 0)), PRIOR_ERROR)
    return Expected(np.clip(quality, 0, 1), error, cost)


def _design(p: FloatArray, z: FloatArray, state: Mapping[str, FloatArray]) -> FloatArray:
    """Return G (n, 2 + c + m)."""
    level = p.mean(axis=1, keepdims=True)
    share = np.clip(z @ state["newcomer.domain"] + state["newcomer.bias"], 1e-3, 1)
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
    slope = level - state["newcomer.level"][-1]
    return np.hstack([np.ones_like(level), slope, share, p - level])


def _by_price(cost: float, state: Mapping[str, FloatArray]) -> tuple[float, float]:
    """Return mean and variance of a newcomer's quality less that of the others, by its cost.

    Regression of the fitted experts' mean quality on their log cost, where that explains any.
    """
    spread = float(state["newcomer.spread"][0]) ** 2
    known = state["prior.cost"] > 0
    n = int(known.sum())
    if not cost > 0 or n < _FEWEST_PRICED:
        return 0.0, spread
    price, quality = np.log(state["prior.cost"][known]), state["prior.mean"][known]
    apart = price - price.mean()
    slope = float(apart @ quality / max(apart @ apart, 1e-12))
    left = quality - quality.mean() - slope * apart
    unexplained = max(float(left @ left) / (n - 2), _LEAST_SPREAD**2)
    if slope <= 0 or unexplained >= spread:
        return 0.0, spread
    place = float(np.clip(np.log(cost), price.min(), price.max()))
    return slope * (place - float(price.mean())), unexplained


def _prior(
    overall: tuple[float, float],
    state: Mapping[str, FloatArray],
    categories: Sequence[str],
    domains: Sequence[str],
    published: Mapping[str, float],
) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance (g,) of the coefficients before any probe."""
    m, c = len(state["prior.mean"]), len(categories)
    ahead, doubt = overall
    domain = float(state["newcomer.spread"][1]) ** 2
    level = state["newcomer.level"]
    lead = float((state["newcomer.best"] - level[:-1]).mean()) if c else 0.0  # of a specialist
    mean = np.zeros(2 + c + m)
    mean[0] = ahead
    variance = np.concatenate([[doubt, 0.3**2], np.full(c, domain), np.full(m, _LIKENESS / m)])
    if OVERALL in published:
        trust = doubt / (doubt + _PUBLISHED_ERROR**2)
        mean[0] += trust * (published[OVERALL] - float(level[-1]) - ahead)
        variance[0] = doubt * (1 - trust)
    for i, name in enumerate(categories):
        if name in domains:
            mean[2 + i] = _DECLARED * lead
        if name in published:
            trust = (doubt + domain) / (doubt + domain + _PUBLISHED_ERROR**2)
            mean[2 + i] = trust * (published[name] - float(level[i])) - mean[0]
            variance[2 + i] = _PUBLISHED_ERROR**2
    return mean, variance


def _checked(expert: str, published: Mapping[str, float]) -> Mapping[str, float]:
    for name, score in published.items():
        if not 0 <= score <= 1:
            raise OptionError(f"published: expert {expert!r}, {name!r}: {score!r} is not in [0, 1]")
    return published
