"""The default: several routers, each weighed by what it can tell about queries it has not seen.

Stacked generalisation (Wolpert, Neural Networks 5, 1992; weights that are not negative: Breiman,
Machine Learning 24, 1996), on what routing is about. With p_k (n, m) the held-out predictions of
member k, mu (m,) the experts' means and C the operator that takes each row's mean away,

    w = argmin over w >= 0 of |C(q - mu) - sum_k w_k C(p_k - mu)|^2 + lambda |w|^2

What all experts share on a query gets weights of its own. A member that knows nothing gets weight
0, and where none does, every query goes to the expert that is best on average. Members hold few
numbers per training query or none, so that a decision costs a few products of small matrices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.bounding import bounded
from routers.building import build_router
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.features import without_features
from routers.linear import centred
from routers.ridge import fit_leverage, leverage
from routers.splits import folds
from routers.table import fit_table

__all__ = ["AutoRouter"]

IntArray = NDArray[np.integer[Any]]
Parts = dict[str, dict[str, FloatArray]]
MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "category": {"type": "category", "max_fallback": 0.0, "temperature": 1.0},
    "clusters": {"type": "cluster", "clusters": 128},
    "factor": {"type": "factor", "rank": 3, "penalty": 30.0},
}
_PENALTY = 100.0  # of the model that says how unusual a query is
_SURPRISE = 0.1  # variance of an outcome, about
_PSEUDO_ROWS = 50.0  # queries' worth of doubt in every member
_WEIGHT = "weight in the stack"
_FEWEST = 8  # queries below which nothing can be held out


@dataclass(kw_only=True)
class AutoRouter(Router):
    """Combine routers by cross-validation.

    Args:
        members: name -> ``{type: a router's registered name or module:Name, its settings}``.
        rehearsals: folds of the cross-validation.
    """

    name: ClassVar[str] = "auto"

    members: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(MEMBERS))
    rehearsals: int = 5

    _built: dict[str, Router] = field(default_factory=dict, init=False, repr=False, compare=False)
    _given: dict[str, FloatArray] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    # The state that was sorted out last, its parts, and how these are mixed.
    _last: tuple[State, Parts, tuple[FloatArray, FloatArray]] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    # What the members said of the queries that were asked about last.
    _said: tuple[FloatArray, State, dict[str, FloatArray]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise OptionError("members: there are none; leave the key out for the usual ones")
        if self.rehearsals < 2:
            raise OptionError(f"rehearsals: {self.rehearsals} is below 2; use 2 or more")
        self._built = {name: self._build(name, spec) for name, spec in self.members.items()}

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features: some members read them."""
        return True

    def _build(self, name: str, spec: Mapping[str, Any]) -> Router:
        options = dict(spec)
        kind = options.pop("type", None)
        if "/" in name:
            raise OptionError(f"members: {name!r} has a '/'; use another sign")
        if not isinstance(kind, str):
            raise OptionError(f"members: {name!r} has no 'type'; write {{type: cluster, ...}}")
        return build_router(kind, self.encoder, options)

    # -- fitting --------------------------------------------------------------------------------

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        known = ~np.isnan(data.quality)
        mean = _means(data)
        members = {n: m for n, m in self._built.items() if _helps(m, data)}
        weights: FloatArray = np.zeros((2, len(members)))
        held: FloatArray = np.broadcast_to(mean, data.quality.shape)
        if self._given is not None:
            weights = np.array([self._given.get(n, np.zeros(2)) for n in members]).T
        elif len(data) >= _FEWEST:
            fold = folds(data, self.rehearsals)
            rehearsed = _rehearse(members, x, data, fold)
            weights = rehearsed.weigh(np.ones(len(data), dtype=bool))
            held = rehearsed.combined(fold)
        self.lineage_["weights"] = {
            n: [round(float(w), 4) for w in both]
            for n, both in zip(members, weights.T, strict=True)
        }
        state: dict[str, FloatArray] = {
            "mean": mean,
            "held": held,
            "noise": _noise(data.quality, known),
            "count": known.sum(axis=0),
            **fit_leverage(x, _PENALTY),
        }
        for (name, member), weight in zip(members.items(), weights.T, strict=True):
            if weight.any():  # what says nothing need not be asked
                learned = replace(member).learn(x, data)[1]
                state |= {f"{name}/{key}": value for key, value in learned.items()}
                state[f"{name}/{_WEIGHT}"] = weight
        return state

    def like(self) -> Self:
        """Return one that takes over the weights: members learn anew, what they are worth stays."""
        fresh = replace(self)
        fresh._given = {n: part[_WEIGHT] for n, part in self._parts(self.state_)[0].items()}
        return fresh

    # -- predicting -----------------------------------------------------------------------------

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        views, (mixing, bias) = self._views(x, state), self._parts(state)[1]
        if not views:
            return np.tile(state["mean"], (len(x), 1))
        return bounded(np.concatenate([*views.values()], axis=1) @ mixing + bias)

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return sqrt(noise_e (1 / n_e + z' (Z'Z + alpha I)^-1 z)), as for one linear model."""
        share = 1 / np.maximum(state["count"], 1) + leverage(x, state)
        error: FloatArray = np.sqrt(state["noise"] * share)
        return error

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        views = self._views(x, state)
        if not views:
            return {"reason": "best on average: nothing was found that tells queries apart"}
        said = {n: self.experts_[int(view.argmax())] for n, view in views.items()}
        details: dict[str, Any] = {"views": said}
        reason = "highest predicted quality"
        for name, member in self._built.items():
            if name in views and isinstance(member, CategoryRouter):
                p = member.shares(x, self._parts(state)[0][name])[0]
                c = int(p.argmax())
                details["category"] = self.categories_[c]
                reason += f"; category {self.categories_[c]} ({p[c]:.2f})"
        return {"reason": reason, **details}

    def _views(self, x: FloatArray, state: State) -> dict[str, FloatArray]:
        """Return what each member that counts says of the queries (n, m)."""
        said = self._said  # read once: another thread may replace it
        if said is None or said[0] is not x or said[1] is not state:
            plain, views = without_features(x), {}
            for name, part in self._parts(state)[0].items():
                member = self._built[name]
                member.experts_, member.categories_ = self.experts_, self.categories_
                views[name] = member._score(x if member.reads_features else plain, part)
            said = self._said = (x, state, views)
        return said[2]

    def _parts(self, state: State) -> tuple[Parts, tuple[FloatArray, FloatArray]]:
        """Return the state of each member that counts, and how their views are mixed.

        Sorted out once, not for every query; in one order, whatever that of a loaded state.
        """
        last = self._last
        if last is None or last[0] is not state:
            found: Parts = {}
            for key, value in state.items():
                name, slash, own = key.partition("/")
                if slash:
                    found.setdefault(name, {})[own] = value
            parts = {name: found[name] for name in self._built if name in found}
            weights = np.array([part[_WEIGHT] for part in parts.values()]).reshape(-1, 2)
            last = self._last = (state, parts, _mixing(state["mean"], weights))
        return last[1:]


# -- what the members can tell -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rehearsed:
    """What members said of queries that they had not seen, as differences from the means.

    Args:
        view: (k, n, m) what each member said.
        mean: (n, m) the experts' means on the rows that the members had seen.
        quality: (n, m) what came out; NaN where unknown.
    """

    view: FloatArray
    mean: FloatArray
    quality: FloatArray

    def weigh(self, rows: NDArray[np.bool_]) -> FloatArray:
        """Return the weights (2, k): of the differences between experts, and of the level."""
        known = ~np.isnan(self.quality[rows])
        target = np.where(known, self.quality[rows] - self.mean[rows], 0)
        views = [view - self.mean[rows] for view in self.view[:, rows]]
        count = np.maximum(known.sum(axis=1), 1)
        apart = [centred(view, known).ravel() for view in views]
        level = [np.where(known, view, 0).sum(axis=1) / count for view in views]
        return np.stack(
            [
                _fit_weights(np.array(apart), centred(target, known).ravel(), len(known)),
                _fit_weights(np.array(level), target.sum(axis=1) / count, len(known)),
            ]
        )

    def combined(self, fold: IntArray) -> FloatArray:
        """Return the prediction of every row (n, m) by weights from the other folds."""
        result = self.mean.copy()
        for f in np.unique(fold):
            rows = fold == f
            for view, weight in zip(self.view, self.weigh(~rows).T, strict=True):
                result[rows] += _weighed(view[rows] - self.mean[rows], weight)
        return bounded(result)


def _rehearse(
    members: Mapping[str, Router], x: FloatArray, data: RoutingDataset, fold: IntArray
) -> _Rehearsed:
    """Let members learn without each fold, and say what they expect there."""
    view = np.zeros((len(members), *data.quality.shape))
    mean = np.zeros(data.quality.shape)
    for f in np.unique(fold):
        held = fold == f
        seen = data.select(~held)
        tried = np.flatnonzero((~np.isnan(seen.quality)).any(axis=0))
        seen = seen.only([data.experts[e] for e in tried])
        cells = np.ix_(held, tried)
        mean[held] = (means := _means(seen)).mean() if len(tried) else 0.5
        view[:, held] = mean[held]
        if len(tried):
            mean[cells] = means
            for part, member in zip(view, members.values(), strict=True):
                member = replace(member)
                part[cells] = member.view(x[held], member.learn(x[~held], seen)[1])
    return _Rehearsed(view, mean, data.quality)


def _fit_weights(views: FloatArray, target: FloatArray, rows: int) -> FloatArray:
    """Return the weights (k,), none negative, of views (k, cells) that explain the target."""
    from scipy.optimize import nnls

    if not views.size:
        return np.zeros(len(views))
    gram = views @ views.T
    # Weights about 1 are likelier than others: a view that was shrunk to nothing is not blown up.
    doubt = gram.diagonal() * _PSEUDO_ROWS / rows + _SURPRISE
    root = np.linalg.cholesky(gram + np.diag(doubt))
    weights: FloatArray = nnls(root.T, np.linalg.solve(root, views @ target))[0]
    return weights


def _mixing(mean: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return A (k m, m) and b (m,) such that views side by side V (n, k m) stack to V A + b.

    It is what `_weighed` adds up to, as one product: for a single query ten times as fast.
    """
    m = len(mean)
    parts = [first * np.eye(m) + (second - first) / m for first, second in weights.tolist()]
    mixing: FloatArray = np.vstack([np.empty((0, m)), *parts])
    bias = mean - np.tile(mean, len(parts)) @ mixing
    return mixing.astype(np.float32), bias.astype(np.float32)


def _weighed(view: FloatArray, weight: FloatArray) -> FloatArray:
    """Weigh the differences within each row of (n, m) by the first, their mean by the second."""
    level = view.mean(axis=1, keepdims=True)
    weighed: FloatArray = weight[0] * (view - level) + weight[1] * level
    return weighed


def _helps(member: Router, data: RoutingDataset) -> bool:
    """Say whether a member can tell anything: without labels a category router repeats clusters."""
    return not isinstance(member, CategoryRouter) or len(data.categories) >= 2


def _means(data: RoutingDataset) -> FloatArray:
    """Return each expert's mean (m,), also where everyone saw other queries."""
    mean: FloatArray = fit_table(data.quality, np.zeros(len(data), dtype=np.intp), 1).quality[0]
    return mean


def _noise(quality: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Return the variance of each expert's outcomes (m,); nobody is certain."""
    count = known.sum(axis=0)
    mean = np.where(known, quality, 0).sum(axis=0) / count
    spread = np.where(known, (quality - mean) ** 2, 0).sum(axis=0)
    noise: FloatArray = (spread + 0.25) / (count + 1)
    return noise
