"""Route by a small neural network that reads the query once for all experts.

A trunk that the experts share and a sigmoid head for each, as in the regressors of Hu et al.,
"RouterBench", https://arxiv.org/abs/2403.12031, and in the MLP routers of LLMRouter:

    quality_e(x) = sigma(w_e . relu(W2 relu(W1 z + b1) + b2) + c_e)

The loss is cross-entropy with quality as a soft target over the cells that are known. Heads start
at zero with c_e the logit of the expert's mean, so that nothing tells experts apart but their
outcomes. Several networks are trained, each on all folds but one. Its own fold says when it stops:
at the best reached quality, made smoother (see `routers.network`); before the first step it
is a constant, and stays one where nothing can be learned. What they say of the folds they have not
seen then says how far the mean of all networks is to be believed:

    score_e(x) = mean_e + common (p(x) - mean)_over all + own (the rest of p_e(x) - mean_e)

with both slopes by least squares. torch trains; numpy predicts.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.data import RoutingDataset
from routers.prior import expert_level
from routers.splits import folds

__all__ = ["MLPRouter"]

BoolArray = NDArray[np.bool_]
_LEAST, _MOST = 0.01, 0.99  # a mean that starts as a logit
_STEEPEST = 3.0  # networks that stopped early lean to the means, but hardly more than that
_LEARNED_BY = 200.0  # outcomes that teach half of how an expert depends on the query
_POOLED = 4.0  # networks' worth of the usual disagreement beside that on the query itself


@dataclass(kw_only=True)
class MLPRouter(Router):
    """Predict quality by the mean of a few small networks.

    Args:
        hidden: width of both layers of the trunk.
        members: how many networks; their disagreement is part of the standard error.
        dropout: share of the inner units that are left out of a step of training.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        epochs: the most passes over the outcomes.
        seed: of initial weights, order and dropout.
        features: read the text's features beside the embedding.
    """

    name: ClassVar[str] = "mlp"

    hidden: int = 128
    members: int = 5
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    epochs: int = 60
    seed: int = 0
    features: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("hidden", 1), ("members", 2), ("epochs", 1)):
            if getattr(self, name) < least:
                raise OptionError(
                    f"{name}: {getattr(self, name)!r} is below {least}; use {least} or more"
                )
        if not 0 <= self.dropout < 1:
            raise OptionError(f"dropout: {self.dropout!r} is not in [0, 1)")
        if not 0 < self.learning_rate < np.inf:
            raise OptionError(f"learning_rate: {self.learning_rate!r} is not a number above 0")
        if not 0 <= self.weight_decay < np.inf:
            raise OptionError(f"weight_decay: {self.weight_decay!r} is not a number of at least 0")
        if not 0 <= self.seed < 2**31:
            raise OptionError(f"seed: {self.seed!r} is not a whole number in [0, 2^31)")

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features as last columns."""
        return self.features

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        graded = np.flatnonzero((~np.isnan(data.quality)).any(axis=1))
        # In the order of their names, so that sums round alike however the columns are ordered.
        order = np.argsort(data.experts)
        data, x = data.select(graded).only([data.experts[i] for i in order]), x[graded]
        level = np.clip(expert_level(data.quality), _LEAST, _MOST)
        fold = folds(data, max(self.members, 3))
        held = np.stack([fold == i for i in range(self.members)])  # (members, n)
        networks = self._train(x, data.quality, level, held)
        own = _outputs(x, networks)  # (members, n, m)
        slopes = _slopes(own, held, data.quality, level)
        self.lineage_["mlp"] = {"common": round(slopes[0], 4), "own": round(slopes[1], 4)}
        back = np.argsort(order)
        return networks | {
            "w3": networks["w3"][:, :, back],
            "b3": networks["b3"][:, back],
            "level": level[back],
            "spread": own.var(axis=0).mean(axis=0)[back],
            "unlearned": _unlearned(own.mean(axis=0), data.quality)[back],
            "slopes": np.array(slopes),
        }

    def _train(
        self, x: FloatArray, quality: FloatArray, level: FloatArray, held: BoolArray
    ) -> dict[str, FloatArray]:
        """Return the networks, stacked; each stops by the rows that are held out from it."""
        from routers.network import Recipe, table, train

        recipe = Recipe(
            hidden=self.hidden,
            dropout=self.dropout,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
        )
        center, scale = x.mean(axis=0), max(float(x.std(axis=0).mean()), 1e-6)
        z = (x - center) / scale
        found = [
            train(table(z[~rows], quality[~rows]), table(z[rows], quality[rows]), level, recipe, s)
            for s, rows in enumerate(held, start=self.seed)
        ]
        stacked = {name: np.stack([one[name] for one in found]) for name in found[0]}
        stacked["w1"] = stacked["w1"] / scale
        stacked["b1"] = stacked["b1"] - center @ stacked["w1"]
        return stacked

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        away = _outputs(x, state).mean(axis=0) - state["level"]
        common = away.mean(axis=1, keepdims=True)
        all_alike, apart = state["slopes"]
        score: FloatArray = state["level"] + all_alike * common + apart * (away - common)
        return score.clip(0, 1)

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error (n, m).

        It is made of that of the expert's mean, of the networks' disagreement, and of what could
        not be learned from few outcomes: there the networks agree, having hardly left the mean.
        """
        here = _outputs(x, state).var(axis=0)
        members = len(state["b1"])
        disagreement = (_POOLED * state["spread"] + members * here) / (_POOLED + members)
        variance: FloatArray = state["prior.error"] ** 2 + disagreement + state["unlearned"]
        error: FloatArray = np.sqrt(variance.clip(max=0.25))
        return error


def _outputs(x: FloatArray, state: State) -> FloatArray:
    """Return what each network predicts (members, n, m)."""
    z = np.maximum(x @ state["w1"] + state["b1"][:, None], 0)
    z = np.maximum(z @ state["w2"] + state["b2"][:, None], 0)
    logits = z @ state["w3"] + state["b3"][:, None]
    outputs: FloatArray = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return outputs


def _unlearned(predicted: FloatArray, quality: FloatArray) -> FloatArray:
    """Return the variance over queries that an expert's few outcomes may hide (m,).

    That is the usual one between queries, of which n_e outcomes teach the part n_e / (n_e + k).
    """
    count = (~np.isnan(quality)).sum(axis=0)
    usual = predicted.var(axis=0) @ count / count.sum()
    unlearned: FloatArray = usual * _LEARNED_BY / (count + _LEARNED_BY)
    return unlearned


def _slopes(
    own: FloatArray, held: NDArray[np.bool_], quality: FloatArray, level: FloatArray
) -> tuple[float, float]:
    """Return how far to believe what all share and what sets them apart, by held-out rows.

    Least squares for one network, p't / p'p, would be too timid for the mean of M of them, which
    has less noise: of p'p goes the part (1 - 1/M) of the variance between networks.
    """
    known = ~np.isnan(quality)
    shared, apart = np.zeros(3), np.zeros(3)  # p't, p'p and the variance between networks
    for predicted, rows in zip(own, held, strict=True):
        seen = known[rows]
        t, t0 = _parts(quality[rows] - level, seen)
        p, p0 = _parts(predicted[rows] - level, seen)
        others, others0 = _parts(own[:, rows] - level, seen)
        shared += [(p0 * t0).sum(), (p0 * p0).sum(), others0.var(axis=0, ddof=1).sum()]
        apart += [(p * t).sum(), (p * p).sum(), others.var(axis=0, ddof=1).sum()]
    return _slope(shared, len(own)), _slope(apart, len(own))


def _parts(values: FloatArray, known: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return the known cells less their row's mean (..., n, m), and that mean (..., n, 1)."""
    values = np.where(known, values, 0)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = values.sum(axis=-1, keepdims=True) / count
    return np.where(known, values - mean, 0), mean


def _slope(moments: FloatArray, members: int) -> float:
    together, alone, between = moments
    alone = max(alone - (1 - 1 / members) * between, alone / members, 1e-12)
    return float(np.clip(together / alone, 0, _STEEPEST))
