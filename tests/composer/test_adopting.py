import json
from dataclasses import replace

import numpy as np
import pytest

from composer.adopting import adopt_saved
from composer.routing import Routing
from experts_registry.errors import ArtefactError, DataError
from experts_registry.registry import Registry
from routers.base import load_router
from routers.data import RoutingDataset
from routers.linear import LinearRouter
from routers.testing import synthetic_outcomes
from tests.composer.test_cli import ok

FILE = """\
version: 1
experts:
  - {name: expert-0, kind: llm, backend: echo, model: echo}
  - {name: expert-1, kind: llm, backend: echo, model: echo}
  - {name: expert-2, kind: llm, backend: echo, model: echo, domains: [category-2]}
  - {name: words, kind: retriever, backend: hashing, model: hashing, options: {dimensions: 64}}
encoder: words
compositions:
  - {name: auto, router: routers/auto}
"""
DATA = synthetic_outcomes(n=200)
PROBES = synthetic_outcomes(n=200).select(range(20)).only(["expert-2"])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "experts.yaml").write_text(FILE)
    encoder = Routing(Registry.load(tmp_path / "experts.yaml")).encoder()
    LinearRouter(encoder=encoder).fit(DATA.without("expert-2")).save(tmp_path / "routers/auto")
    return tmp_path


def test_an_adopted_expert_is_routed_to_where_it_is_good(folder):
    registry = Registry.load(folder / "experts.yaml")
    encoder = Routing(registry).encoder()
    [found] = adopt_saved(folder / "routers/auto", encoder, PROBES, registry)
    assert (found.expert, found.probes) == ("expert-2", 20)
    router = load_router(folder / "routers/auto", encoder=encoder)
    own = [q for q, c in zip(DATA.queries, DATA.category, strict=True) if c == "category-2"]
    score = router.score(own, experts=["expert-0", "expert-1", "expert-2"])
    assert (np.argmax(score, axis=1) == 2).mean() > 0.8


def test_nobody_elses_predictions_change(folder):
    registry = Registry.load(folder / "experts.yaml")
    encoder = Routing(registry).encoder()
    before = load_router(folder / "routers/auto", encoder=encoder).score(DATA.queries[:20])
    adopt_saved(folder / "routers/auto", encoder, PROBES, registry)
    router = load_router(folder / "routers/auto", encoder=encoder)
    after = router.score(DATA.queries[:20], experts=["expert-0", "expert-1"])
    assert np.array_equal(before, after)


def test_outcomes_without_a_newcomer_are_refused(folder):
    registry = Registry.load(folder / "experts.yaml")
    encoder = Routing(registry).encoder()
    with pytest.raises(DataError, match="was fitted on every expert"):
        adopt_saved(folder / "routers/auto", encoder, DATA.without("expert-2"), registry)


def test_an_expert_that_was_adopted_before_is_not_forgotten_silently(folder):
    registry = Registry.load(folder / "experts.yaml")
    encoder = Routing(registry).encoder()
    adopt_saved(folder / "routers/auto", encoder, PROBES, registry)
    other = RoutingDataset(queries=("x",), experts=("expert-3",), quality=np.ones((1, 1)))
    with pytest.raises(ArtefactError, match="adopted expert-2 before"):
        adopt_saved(folder / "routers/auto", encoder, other, registry)


def test_the_command_says_what_is_expected(folder):
    PROBES.save(folder / "probes.parquet")
    [found] = json.loads(ok("adopt", "probes.parquet", "--json", cwd=folder))
    assert found["expert"] == "expert-2"
    assert 0.2 < found["quality"] < 0.8
    assert "expected on them" in ok("adopt", "probes.parquet", cwd=folder)
    assert json.loads(ok("route", "--json", DATA.queries[0], cwd=folder))["candidates"]


def test_the_others_outcomes_on_the_same_queries_narrow_the_error(folder):
    registry = Registry.load(folder / "experts.yaml")
    encoder = Routing(registry).encoder()
    hard = np.random.default_rng(0).random((200, 1)) < 0.5  # for all of them
    data = replace(DATA, quality=np.where(hard, 0.2, 0.8) * np.ones((1, 3)))
    rest, probes = data.without("expert-2"), data.select(range(20)).only(["expert-2"])

    def adopted(known):
        LinearRouter(encoder=encoder).fit(rest).save(folder / "routers/auto")
        return adopt_saved(folder / "routers/auto", encoder, probes, registry, known=known)[0]

    alone = adopted(None)
    assert adopted(rest).error < alone.error
    assert adopted(rest.select(range(100, 200))) == alone  # other queries tell nothing
