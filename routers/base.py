"""What a router is: predicted quality per expert, from which a decision follows.

A subclass writes `_fit` and `_score`, both pure, over arrays; fitting, routing, explaining,
saving and loading come from `Router`. Notation: ``n`` queries, ``m`` experts, ``d`` dimensions,
``x`` (n, d) unit rows of embedding and words side by side (`routers.words`), ``z`` (n, d + f) the
same with the features of `routers.features` beside them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from experts_registry.errors import ArtefactError, OptionError, PromptError
from experts_registry.types import Embedder, FloatArray
from routers.artefact import load_router, save_router
from routers.costs import fit_cost, predict_cost
from routers.data import RoutingDataset
from routers.decision import Candidate, Decision, Prediction, first, ranked, selected
from routers.features import as_learned, feature_scale, text_features, window, without_features
from routers.newcomers import CAUTION, fit_newcomers, predict_newcomers, prepare_newcomers
from routers.policies import NOBODY, Policy
from routers.prior import expert_prior
from routers.rehearsal import rehearse
from routers.transforms import Context, ScoreTransform, transform
from routers.words import beside_words

__all__ = ["Candidate", "Decision", "Prediction", "Router", "State", "load_router", "window"]

State = Mapping[str, FloatArray]


@dataclass(kw_only=True)
class Router(ABC):
    """Predict the quality of each expert on a query.

    Hyperparameters are dataclass fields of the subclass. Fitted attributes end in ``_``.

    Args:
        encoder: turns queries into embeddings, half of ``x``.
        cost_weight: quality given up for the dearest expert's mean cost; 0 ignores cost.
    """

    name: ClassVar[str] = ""  # set by load_plugin's registered name where it differs

    encoder: Embedder
    cost_weight: float = 0.0

    experts_: tuple[str, ...] = field(default=(), init=False)
    categories_: tuple[str, ...] = field(default=(), init=False)
    cost_unit_: str = field(default="", init=False)
    state_: dict[str, FloatArray] = field(default_factory=dict, init=False, repr=False)
    lineage_: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    newcomers_: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.cost_weight < np.inf:
            raise OptionError(f"cost_weight: {self.cost_weight!r} is not a number of at least 0")

    # -- what a subclass writes -----------------------------------------------------------------

    @abstractmethod
    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        """Learn from embeddings (n, d) and outcomes; NaN marks a missing one."""

    @abstractmethod
    def _score(self, x: FloatArray, state: State) -> FloatArray:
        """Return the expected quality (n, m)."""

    def _prepare(self, x: FloatArray, data: RoutingDataset) -> RoutingDataset:
        """Return the data to fit on, rows in the same order; a router may label them here.

        What is worth telling about it goes into ``lineage_``.
        """
        return data

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error (n, m); by default that of each expert's mean quality."""
        return np.broadcast_to(state["prior.error"], (len(x), len(self.experts_)))

    def _cost(self, x: FloatArray, state: State) -> FloatArray | None:
        """Return the expected cost (n, m), or None for that of `routers.costs`."""
        return None

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        """Return what ranks the experts (n, m) before cost is weighed; by default quality."""
        return quality

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        """Say what decided for one query, x (1, d), as JSON values; ``reason`` is shown."""
        return {}

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features as last columns; by default only the embedding."""
        return False

    # -- what everybody calls -------------------------------------------------------------------

    def fit(self, data: RoutingDataset) -> Self:
        """Learn from outcomes.

        An expert without a single outcome is left to the prior, as one that comes later.

        Raises:
            DataError: there are no outcomes.
        """
        return self.fit_embedded(self.embed(data.queries), data)

    def fit_embedded(self, z: FloatArray, data: RoutingDataset) -> Self:
        """Learn from outcomes whose queries were embedded before, z as `embed` returns it.

        Raises:
            DataError: there are no outcomes.
        """
        data.require_outcomes()
        self.lineage_ = {
            "data": data.digest,
            "queries": len(data.queries),
            "encoder": self.encoder.digest,
        }
        tried = np.flatnonzero((~np.isnan(data.quality)).any(axis=0))
        data = data.only([data.experts[i] for i in tried])
        scale = feature_scale(z)
        z = as_learned(z, z.shape[1], scale)
        data, state = self.learn(z, data)
        self.cost_unit_, self.newcomers_ = data.cost_unit, ()
        state |= scale | fit_cost(z, data.cost, state["prior.cost"]) | prepare_newcomers(z, data)
        # safetensors silently scrambles an array that is not contiguous.
        self.state_ = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in state.items()}
        return self

    def learn(
        self, z: FloatArray, data: RoutingDataset
    ) -> tuple[RoutingDataset, dict[str, FloatArray]]:
        """Return the data as it was labelled, and what was learned: for routers made of routers.

        z is standardised, and every expert has an outcome.
        """
        data = self._prepare(without_features(z), data)
        self.experts_, self.categories_ = data.experts, data.categories
        return data, {**expert_prior(data), **self._fit(self._columns(z), data)}

    def view(self, z: FloatArray, state: State) -> FloatArray:
        """Return the quality (n, m) by what `learn` returned."""
        return self._score(self._columns(z), state)

    def rehearse(
        self, data: RoutingDataset, *, z: FloatArray | None = None, keep: bool = False
    ) -> Self:
        """Find out how this router does on queries it has not seen; the guard learns from it.

        Fits about a dozen more routers like this one, each on part of the data.

        Args:
            data: what it was fitted on.
            z: its queries as `embed` returns them, where that was done before.
            keep: keep the embeddings too; `routers.neighbours` needs them.
        """
        self._require_fitted()
        z = self.embed(data.queries) if z is None else z
        found = rehearse(self, z, data.only(self.experts_), keep=keep)
        self.state_ |= {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in found.items()}
        return self

    def like(self) -> Self:
        """Return an unfitted router that learns as this one did."""
        return replace(self)

    def adopt(
        self,
        data: RoutingDataset,
        *,
        domains: Mapping[str, Sequence[str]] | None = None,
        published: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Self:
        """Return a router that also knows the experts of ``data`` that it was not fitted on.

        What is known of each is little: a few probes, what it is said to be meant for, what was
        published of it. See `routers.newcomers`. Nobody else's scores change; newcomers of before
        stay, unless they are in ``data`` again.

        Args:
            data: outcomes of the newcomers; there may be none at all. Those of the fitted experts
                on the same queries, where they are known too, say how hard these were.
            domains: expert -> categories that it is meant for.
            published: expert -> category, or ``overall`` -> published score in [0, 1].
        """
        self._require_fitted()
        names = tuple(n for n in data.experts if n not in self.experts_)
        adopted = copy(self)
        z = self._read(self.embed(data.queries)) if len(data) else np.empty((0, 0))
        answers = data.columns(self.experts_)
        stay = [i for i, n in enumerate(self.newcomers_) if n not in names]
        adopted.newcomers_ = (*(self.newcomers_[i] for i in stay), *names)
        adopted.state_ = self.state_ | fit_newcomers(
            self._score(self._columns(z), self.state_) if len(z) else answers,
            z,
            data.only(names),
            answers,
            self.state_,
            self.categories_,
            domains or {},
            published or {},
            cost_unit=self.cost_unit_,
            stay=stay,
        )
        adopted.lineage_ = self.lineage_ | {
            "newcomers": self.lineage_.get("newcomers", {}) | {n: len(data) for n in names}
        }
        return adopted

    def predict(
        self,
        queries: Sequence[str],
        *,
        experts: Sequence[str] | None = None,
        cost_weight: float | None = None,
    ) -> Prediction:
        """Predict quality, error, cost and utility for these experts, by default the fitted ones.

        An expert that was not there at fit time gets the prior: the mean over the fitted experts
        on the same query, with an error of 0.5. A constant would make it win every hard query.
        Leaving an expert out changes no other column.
        """
        self._require_fitted()
        return self.predict_embedded(self.embed(queries), experts=experts, cost_weight=cost_weight)

    def predict_embedded(
        self,
        x: FloatArray,
        *,
        experts: Sequence[str] | None = None,
        cost_weight: float | None = None,
    ) -> Prediction:
        """Predict as `predict` does, from what `embed` returned, or from embeddings alone."""
        z = self._read(x)
        weight = self.cost_weight if cost_weight is None else cost_weight
        return self._among(self._predict(z, self._columns(z), weight), experts, weight)

    def _predict(self, z: FloatArray, x: FloatArray, weight: float) -> Prediction:
        """Predict for every expert that is known, weighing cost."""
        state = self.state_
        quality = self._score(x, state)
        error, cost = self._error(x, state), self._cost(x, state)
        if cost is None:
            cost = predict_cost(z, state)
        utility = self._utility(x, state, quality)
        if self.newcomers_:
            new = predict_newcomers(quality, z, state)
            quality, error = np.hstack([quality, new.quality]), np.hstack([error, new.error])
            cautious = new.quality - CAUTION * new.error
            utility, cost = np.hstack([utility, cautious]), np.hstack([cost, new.cost])
        scale = float(state["prior.scale"][0])
        if weight:
            utility = utility - weight * np.where(np.isnan(cost), scale, cost) / scale
        known = self.experts_ + self.newcomers_
        return Prediction(experts=known, quality=quality, error=error, cost=cost, utility=utility)

    def _among(
        self, everyone: Prediction, experts: Sequence[str] | None, weight: float
    ) -> Prediction:
        if experts is None or tuple(experts) == everyone.experts:
            return everyone
        prior = everyone.quality[:, : len(self.experts_)].mean(axis=1, keepdims=True)
        return everyone.among(experts, prior, weight)

    def score(self, queries: Sequence[str], *, experts: Sequence[str] | None = None) -> FloatArray:
        """Return the expected quality (n, m), columns as ``experts``, by default ``experts_``."""
        return self.predict(queries, experts=experts).quality

    def route(
        self,
        query: str,
        *,
        k: int = 1,
        experts: Sequence[str] | None = None,
        cost_weight: float | None = None,
        excluded: Mapping[str, str] | None = None,
        transforms: Sequence[ScoreTransform] = (),
        policy: Policy | None = None,
        temperature: float = 1.0,
        budget: float | None = None,
    ) -> Decision:
        """Choose experts for a query.

        Args:
            query: the text.
            k: how many, where no policy says it.
            experts: whom to consider, by default all that are known.
            cost_weight: replaces the router's own.
            excluded: experts that must not be chosen, with the reason shown to people.
            transforms: change the scores, in order, before experts are selected.
            policy: selects from the scores; by default the best ``k``.
            temperature: what the policy divides scores by.
            budget: most that the selected experts may be expected to cost together.

        Raises:
            PromptError: the query is empty, or no expert is left to ask.
            AbstainError: the policy would rather ask nobody.
            BudgetError: nobody is cheap enough.
        """
        if not query.strip():
            raise PromptError("query: it is empty; write a question or a task")
        self._require_fitted()
        z = self._read(self.embed([query]))
        x = self._columns(z)  # once: what was found out about it is known by its identity
        weight = self.cost_weight if cost_weight is None else cost_weight
        everyone = self._predict(z, x, weight)
        prediction = self._among(everyone, experts, weight)
        excluded = excluded or {}
        scores, notes = prediction.utility, list[str]()
        if excluded or transforms:
            known = prediction.experts
            available = np.array([[name not in excluded for name in known]], dtype=bool)
            context = Context(x=z, prediction=prediction, available=available)
            scores, notes = transform(scores, context, transforms)
        candidates = ranked(prediction, scores[0], excluded)
        details = dict(self._details(x, self.state_))
        reason = details.pop("reason", "highest predicted quality")
        if not set(self.experts_) <= set(prediction.experts):
            best = everyone.experts[int(np.argmax(everyone.utility[0]))]
            if best not in prediction.experts:
                notes.append(f"{best}, which would come first, is not among the candidates")
        if weight:
            notes.insert(0, f"cost weighed by {weight:g}")
        found = NOBODY
        chosen = first(candidates, k)  # also where a policy follows: somebody must be there to ask
        if policy is not None:
            m, cost = prediction.experts, prediction.cost[0]
            found = policy(scores[0], experts=m, temperature=temperature, cost=cost, budget=budget)
            chosen = selected(candidates, m, found)
            notes += [found.told] if found.told else []
        return Decision(
            experts=tuple(c.expert for c in chosen),
            scores=tuple(c.quality for c in chosen),
            reason="; ".join([reason, *notes]),
            candidates=tuple(candidates),
            router=type(self).name or type(self).__name__,
            cost_unit=self.cost_unit_,
            details=details,
            weights=found.weights,
        )

    def explain(self, query: str, *, experts: Sequence[str] | None = None) -> Decision:
        """Return the decision over every expert: the same numbers that `route` decides by."""
        names = self.experts_ + self.newcomers_ if experts is None else tuple(experts)
        return self.route(query, k=max(1, len(names)), experts=names)

    # -- on disk --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write ``router.json`` and ``state.safetensors`` into a folder, each atomically."""
        self._require_fitted()
        return save_router(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, encoder: Embedder) -> Self:
        """Read a saved router of this class; `load_router` reads any."""
        router = load_router(path, encoder=encoder)
        if not isinstance(router, cls):
            raise ArtefactError(
                f"{path}: holds a {type(router).__name__}, not a {cls.__name__}; use load_router"
            )
        return router

    # -- inside ---------------------------------------------------------------------------------

    def embed(self, queries: Sequence[str]) -> FloatArray:
        """Return what the router is given of the queries, z (n, d + f)."""
        texts = [window(query) for query in queries]
        return np.concatenate((self._encode(texts), text_features(texts)), axis=1)

    def _encode(self, texts: Sequence[str]) -> FloatArray:
        """Return the unit rows x (n, d) of texts: embedding and words."""
        return beside_words(self.encoder.embed(texts, role="query"), texts)

    def _read(self, z: FloatArray) -> FloatArray:
        """Return z (n, d + f) as it was learned from."""
        return as_learned(z, len(self.state_["cost.weight"]), self.state_)

    def _columns(self, z: FloatArray) -> FloatArray:
        """Return the columns of z that this router's hooks are given."""
        return z if self.reads_features else without_features(z)

    def _require_fitted(self) -> None:
        if not self.state_:
            raise OptionError(f"{type(self).__name__}: is not fitted; call fit(data) first")
