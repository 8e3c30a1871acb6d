"""What a router is: predicted quality per expert, from which a decision follows.

A subclass writes `_fit` and `_score`, both pure, over arrays; fitting, routing, explaining,
saving and loading come from `Router`. Notation: ``n`` queries, ``m`` experts, ``d`` dimensions,
``x`` (n, d) embeddings with unit rows.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from experts_registry.errors import ArtefactError, OptionError, PromptError
from experts_registry.plugins import load_plugin
from experts_registry.types import Embedder, FloatArray
from routers.data import RoutingDataset
from routers.decision import Candidate, Decision, Prediction, ranked
from routers.prior import PRIOR_ERROR, expert_prior

__all__ = ["Candidate", "Decision", "Prediction", "Router", "State", "load_router", "window"]

State = Mapping[str, FloatArray]
FORMAT = 1
_HALF_WINDOW = 2000  # characters kept at either end of a long query


def window(text: str) -> str:
    """Return what routers read of a query: the whole of it, or its head and tail.

    Cutting before the encoder keeps a megabyte of text from costing a megabyte of tokenising.
    Lone surrogates, which no tokenizer takes, become question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= 2 * _HALF_WINDOW:
        return text
    return f"{text[:_HALF_WINDOW]}\n...\n{text[-_HALF_WINDOW:]}"


@dataclass(kw_only=True)
class Router(ABC):
    """Predict the quality of each expert on a query.

    Hyperparameters are dataclass fields of the subclass. Fitted attributes end in ``_``.

    Args:
        encoder: turns queries into rows of ``x``.
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

    def _cost(self, x: FloatArray, state: State) -> FloatArray:
        """Return the expected cost (n, m); by default each expert's mean."""
        return np.broadcast_to(state["prior.cost"], (len(x), len(self.experts_)))

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        """Return what ranks the experts (n, m) before cost is weighed; by default quality."""
        return quality

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        """Say what decided for one query, x (1, d), as JSON values; ``reason`` is shown."""
        return {}

    # -- what everybody calls -------------------------------------------------------------------

    def fit(self, data: RoutingDataset) -> Self:
        """Learn from outcomes.

        An expert without a single outcome is left to the prior, as one that comes later.

        Raises:
            DataError: there are no outcomes.
        """
        data.require_outcomes()
        x = self.embed(data.queries)
        self.lineage_ = {
            "data": data.digest,
            "queries": len(data.queries),
            "encoder": self.encoder.digest,
        }
        tried = np.flatnonzero((~np.isnan(data.quality)).any(axis=0))
        data = self._prepare(x, data.only([data.experts[i] for i in tried]))
        self.experts_, self.categories_ = data.experts, data.categories
        self.cost_unit_ = data.cost_unit
        state = {**expert_prior(data), **self._fit(x, data)}
        # safetensors silently scrambles an array that is not contiguous.
        self.state_ = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in state.items()}
        return self

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
        """Predict from embeddings (n, d), as `predict` does from texts."""
        weight = self.cost_weight if cost_weight is None else cost_weight
        quality = self._score(x, self.state_)
        cost = self._cost(x, self.state_)
        scale = float(self.state_["prior.scale"][0])
        utility = self._utility(x, self.state_, quality)
        utility = utility - weight * np.nan_to_num(cost, nan=scale) / scale
        names = self.experts_ if experts is None else tuple(experts)
        column = {name: i for i, name in enumerate(self.experts_)}
        index = np.array([column.get(name, -1) for name in names], dtype=np.intp)
        prior = quality.mean(axis=1, keepdims=True)  # (n, 1)

        def pick(values: FloatArray, new: float | FloatArray) -> FloatArray:
            picked = np.empty((len(x), len(names)))
            picked[:] = new
            known = index >= 0
            picked[:, known] = values[:, index[known]]
            return picked

        return Prediction(
            experts=names,
            quality=pick(quality, prior),
            error=pick(self._error(x, self.state_), PRIOR_ERROR),
            cost=pick(cost, np.nan),
            utility=pick(utility, prior - weight),
        )

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
    ) -> Decision:
        """Choose ``k`` experts for a query.

        Args:
            query: the text.
            k: how many.
            experts: whom to consider, by default the fitted ones.
            cost_weight: replaces the router's own.
            excluded: experts that must not be chosen, with the reason shown to people.

        Raises:
            PromptError: the query is empty, or no expert is left to ask.
        """
        if not query.strip():
            raise PromptError("query: it is empty; write a question or a task")
        if k < 1:
            raise OptionError(f"k: {k} is below 1; use 1 or more")
        self._require_fitted()
        x = self.embed([query])
        prediction = self.predict_embedded(x, experts=experts, cost_weight=cost_weight)
        candidates = ranked(prediction, excluded or {})
        chosen = [c for c in candidates if not c.excluded][:k]
        if not chosen:
            listed = (
                "; ".join(f"{c.expert}: {c.excluded}" for c in candidates) or "none is registered"
            )
            raise PromptError(f"query: no expert may be asked ({listed})")
        details = dict(self._details(x, self.state_))
        reason = details.pop("reason", "highest predicted quality")
        if absent := self._absent(x, candidates, cost_weight):
            reason += f"; {absent}, which would come first, is not among the candidates"
        return Decision(
            experts=tuple(c.expert for c in chosen),
            scores=tuple(c.quality for c in chosen),
            reason=reason,
            candidates=tuple(candidates),
            router=type(self).name or type(self).__name__,
            cost_unit=self.cost_unit_,
            details=details,
        )

    def _absent(
        self, x: FloatArray, candidates: Sequence[Candidate], cost_weight: float | None
    ) -> str | None:
        """Return the fitted expert that would win if it could be asked, where it is not here."""
        names = {c.expert for c in candidates}
        if names >= set(self.experts_):
            return None
        first = ranked(self.predict_embedded(x, cost_weight=cost_weight), {})[0].expert
        return None if first in names else first

    def explain(self, query: str, *, experts: Sequence[str] | None = None) -> Decision:
        """Return the decision over every expert: the same numbers that `route` decides by."""
        names = self.experts_ if experts is None else tuple(experts)
        return self.route(query, k=max(1, len(names)), experts=names)

    # -- on disk --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write ``router.json`` and ``state.safetensors`` into a folder, each atomically."""
        from safetensors.numpy import save

        self._require_fitted()
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        cls, content = type(self), save(self.state_)
        header = {
            "format": FORMAT,
            "state": sha256(content).hexdigest(),
            "router": f"{cls.__module__}:{cls.__qualname__}",
            "experts": self.experts_,
            "categories": self.categories_,
            "cost_unit": self.cost_unit_,
            "hyperparameters": self._hyperparameters(),
            "lineage": self.lineage_,
        }
        _replace(folder / "state.safetensors", content)
        _replace(folder / "router.json", json.dumps(header, indent=2).encode())
        return folder

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
        """Return what the router reads of the queries (n, d)."""
        return self.encoder.embed([window(q) for q in queries], role="query")

    def _require_fitted(self) -> None:
        if not self.state_:
            raise OptionError(f"{type(self).__name__}: is not fitted; call fit(data) first")

    def _hyperparameters(self) -> dict[str, Any]:
        return {
            f.name: getattr(self, f.name) for f in fields(self) if f.init and f.name != "encoder"
        }


def load_router(path: str | Path, *, encoder: Embedder) -> Router:
    """Read a saved router, whatever its class.

    Raises:
        ArtefactError: the folder holds no router, a damaged one, or one of another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = Path(path)
    try:
        header = json.loads((folder / "router.json").read_text(encoding="utf-8"))
        content = (folder / "state.safetensors").read_bytes()
        state = load(content)
    except OSError as error:
        raise ArtefactError(
            f"{folder}: holds no router ({error.strerror}); make one with 'expert-composer train'"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise ArtefactError(f"{folder}: is damaged ({error}); train it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ArtefactError(f"{folder}: is not of format {FORMAT}; train it again")
    if header.get("state") != sha256(content).hexdigest():
        raise ArtefactError(
            f"{folder}: router.json and state.safetensors are not of one training; train it again"
        )
    try:
        return _rebuild(folder, header, state, encoder)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{folder}: does not fit this version of its router ({error}); train it again"
        ) from error


def _rebuild(
    folder: Path, header: dict[str, Any], state: dict[str, FloatArray], encoder: Embedder
) -> Router:
    if (fitted := header["lineage"]["encoder"]) != encoder.digest:
        raise ArtefactError(
            f"{folder}: was fitted with encoder {fitted[:12]}, not {encoder.digest[:12]}; "
            "use that encoder or train it again"
        )
    cls = load_plugin("routers", header["router"])
    if not (isinstance(cls, type) and issubclass(cls, Router)):
        raise ArtefactError(f"{folder}: {header['router']!r} is not a router; train it again")
    if len(header["experts"]) != len(state["prior.mean"]):
        raise ArtefactError(
            f"{folder}: names {len(header['experts'])} experts, but holds the state "
            f"of {len(state['prior.mean'])}; train it again"
        )
    router: Router = cls(encoder=encoder, **header["hyperparameters"])
    router.experts_ = tuple(header["experts"])
    router.categories_ = tuple(header["categories"])
    router.cost_unit_ = header["cost_unit"]
    router.lineage_ = header["lineage"]
    router.state_ = state
    return router


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
