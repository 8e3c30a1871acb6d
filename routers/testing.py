"""What authors of routers test with: the contract, an encoder without weights, planted outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.errors import ArtefactError, ComposerError, OptionError, PromptError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray, Role
from routers.base import Router, load_router
from routers.data import RoutingDataset
from routers.prior import PRIOR_ERROR

__all__ = ["HashingEncoder", "check_router", "synthetic_outcomes"]

_CLOSE = 1e-5
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


class HashingEncoder(HashingEmbedder):
    """The encoder of the ``hashing`` backend: real, fast, needs no model."""

    def __init__(self, dimensions: int = 64) -> None:
        options = {"dimensions": dimensions, "longest": 3}  # longer n-grams take longer
        super().__init__(
            ExpertSpec(
                name="hashing",
                kind="retriever",
                backend="hashing",
                model="hashing",
                options=options,
            )
        )


def synthetic_outcomes(
    seed: int = 0, *, n: int = 300, experts: int = 3, categories: int = 3
) -> RoutingDataset:
    """Make outcomes in which expert i is the best on the categories c with c mod experts = i.

    It is right on 90 % of these and on 30 % of the rest; its cost grows with i. Each category has
    words of its own, so that a router which reads the query can find out.
    """
    rng = np.random.default_rng(seed)
    syllables = rng.choice(_SYLLABLES, size=((categories + 1) * 20, 3))
    words = ["".join(parts) for parts in syllables.tolist()]
    category = rng.integers(categories, size=n)
    queries = []
    for i, c in enumerate(category):
        own = rng.choice(words[20 * c : 20 * c + 20], size=8).tolist()
        shared = rng.choice(words[-20:], size=4).tolist()
        queries.append(f"{' '.join(rng.permutation(own + shared).tolist())} {i}")
    is_own = category[:, None] % experts == np.arange(experts)
    return RoutingDataset(
        queries=tuple(queries),
        experts=tuple(f"expert-{i}" for i in range(experts)),
        quality=(rng.random((n, experts)) < np.where(is_own, 0.9, 0.3)).astype(float),
        cost=np.broadcast_to(0.001 * np.arange(1, experts + 1), (n, experts)),
        category=tuple(f"category-{c}" for c in category),
    )


def check_router(router: Router, data: RoutingDataset, tmp_path: Path) -> None:
    """Check everything that is expected of a router; use it in a test of your own.

    Args:
        router: not fitted yet.
        data: outcomes of at least two experts; a hundred queries are plenty.
        tmp_path: an empty folder.

    Raises:
        AssertionError: with the claim that does not hold.
    """
    _check_unfitted(router, data)
    fitted = replace(router).fit(data)
    queries = list(data.queries[:20])
    _check_predictions(fitted, data, queries)
    _check_repeatable(router, fitted, data, queries)
    _check_other_experts(fitted, queries)
    _check_permutation(router, fitted, data, queries)
    _check_missing_cells(router, data, queries)
    _check_odd_queries(fitted)
    _check_decisions(fitted, queries)
    _check_disk(fitted, queries, tmp_path)


def _claim(holds: bool | np.bool_, claim: str) -> None:
    if not holds:
        raise AssertionError(claim)


def _same(a: FloatArray, b: FloatArray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=0, atol=_CLOSE, equal_nan=True))


def _refuses(error: type[ComposerError], call: str, router: Router, *args: str) -> bool:
    try:
        getattr(router, call)(*args)
    except error:
        return True
    return False


def _check_unfitted(router: Router, data: RoutingDataset) -> None:
    refused = _refuses(OptionError, "route", replace(router), data.queries[0])
    _claim(refused, "an unfitted router refuses to route")


def _check_predictions(fitted: Router, data: RoutingDataset, queries: list[str]) -> None:
    _claim(fitted.experts_ == data.experts, "experts_ are those of the data, in order")
    found = fitted.predict(queries)
    shape = (len(queries), len(data.experts))
    for name in ("quality", "error", "utility"):
        array = getattr(found, name)
        _claim(array.shape == shape, f"{name} has the shape (queries, experts)")
        _claim(np.isfinite(array).all(), f"{name} is finite")
    _claim((found.error >= 0).all(), "errors are not negative")
    _claim(found.cost.shape == shape, "cost has the shape (queries, experts)")


def _check_repeatable(
    router: Router, fitted: Router, data: RoutingDataset, queries: list[str]
) -> None:
    first = fitted.predict(queries)
    _claim(_same(first.utility, fitted.predict(queries).utility), "predicting twice gives the same")
    again = replace(router).fit(data).predict(queries)
    _claim(_same(first.quality, again.quality), "fitting twice gives the same")
    _claim(_same(first.utility, again.utility), "fitting twice ranks the same")
    single = np.vstack([fitted.predict([query]).utility for query in queries])
    _claim(_same(first.utility, single), "a query alone is ranked as in a batch")


def _check_other_experts(fitted: Router, queries: list[str]) -> None:
    everyone = fitted.predict(queries)
    for left_out in range(len(fitted.experts_)):
        rest = [i for i in range(len(fitted.experts_)) if i != left_out]
        names = [fitted.experts_[i] for i in rest]
        fewer = fitted.predict(queries, experts=names)
        for name in ("quality", "error", "cost", "utility"):
            same = _same(getattr(everyone, name)[:, rest], getattr(fewer, name))
            _claim(same, f"leaving an expert out changes no other one's {name}")
        chosen = fitted.route(queries[0], experts=names)
        _claim(chosen.primary in names, "only the given experts are chosen")
    more = fitted.predict(queries, experts=[*fitted.experts_, "an expert that came later"])
    _claim(_same(more.utility[:, :-1], everyone.utility), "a new expert changes no other one")
    _claim(_same(more.quality[:, -1], everyone.quality.mean(axis=1)), "a new expert gets the prior")
    _claim((more.error[:, -1] >= PRIOR_ERROR).all(), "a new expert gets a wide error")


def _check_permutation(
    router: Router, fitted: Router, data: RoutingDataset, queries: list[str]
) -> None:
    turned = replace(router).fit(data.only(data.experts[::-1])).predict(queries)
    straight = fitted.predict(queries)
    for name in ("quality", "utility"):
        same = _same(getattr(straight, name)[:, ::-1], getattr(turned, name))
        _claim(same, f"the order of the experts makes no difference to {name}")


def _check_missing_cells(router: Router, data: RoutingDataset, queries: list[str]) -> None:
    quality = data.quality.copy()
    quality[np.random.default_rng(0).random(quality.shape) < 0.3] = np.nan
    quality[0] = np.nan
    quality[1] = data.quality[1]
    holes = replace(router).fit(replace(data, quality=quality)).predict(queries)
    _claim(np.isfinite(holes.utility).all(), "missing cells are accepted")
    quality[:, -1] = np.nan
    untried = replace(router).fit(replace(data, quality=quality))
    found = untried.predict(queries, experts=data.experts)
    _claim(np.isfinite(found.utility).all(), "an expert without any outcome is accepted")
    wide = (found.error[:, -1] >= PRIOR_ERROR).all()
    _claim(wide, "an expert without any outcome gets a wide error")


def _check_odd_queries(fitted: Router) -> None:
    for empty in ("", " \n\t"):
        _claim(_refuses(PromptError, "route", fitted, empty), "an empty query is a PromptError")
    for odd in (
        "word " * 200_000,
        "x",
        "Какой сегодня день?",
        "今天天气怎么样",
        "🙂",
        "a\x00b",
        "\ud800",
    ):
        decision = fitted.route(odd)
        _claim(np.isfinite(decision.scores).all(), f"any text is routed, also {odd[:20]!r}")


def _check_decisions(fitted: Router, queries: list[str]) -> None:
    for query in queries[:5]:
        decision, story = fitted.route(query), fitted.explain(query)
        _claim(decision.primary == story.primary, "explain chooses as route does")
        _claim(decision.candidates == story.candidates, "explain shows what route decided by")
        _claim(set(story.experts) == set(fitted.experts_), "explain ranks every expert")
        _claim(bool(decision.reason.strip()), "a decision has a reason")
        next_best = fitted.route(query, excluded={decision.primary: "switched off"})
        _claim(next_best.primary == decision.otherwise, "otherwise is who would come next")


def _check_disk(fitted: Router, queries: list[str], tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "router")
    loaded = load_router(folder, encoder=fitted.encoder)
    before, after = fitted.predict(queries), loaded.predict(queries)
    for name in ("quality", "error", "cost", "utility"):
        same = _same(getattr(before, name), getattr(after, name))
        _claim(same, f"a saved router predicts the same {name}")
    _claim(
        loaded.explain(queries[0]) == fitted.explain(queries[0]), "a saved router explains alike"
    )
    try:
        load_router(folder, encoder=_Renamed(fitted.encoder))
    except ArtefactError:
        return
    raise AssertionError("a router is not loaded with another encoder")


@dataclass(frozen=True)
class _Renamed:
    """The same vectors under another digest."""

    encoder: Embedder
    digest: str = "another encoder"

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        return self.encoder.embed(texts, role=role)

    def close(self) -> None:
        self.encoder.close()
