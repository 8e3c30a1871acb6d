import json
from dataclasses import dataclass

import numpy as np
import pytest

from experts_registry.errors import ArtefactError, DataError, OptionError, PromptError
from routers.base import Router, load_router, window
from routers.baselines import BestOnAverage
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.testing import HashingEncoder

ENCODER = HashingEncoder()


@dataclass(kw_only=True)
class Fixed(Router):
    """Predicts each expert's mean."""

    def _fit(self, x, data):
        return {}

    def _score(self, x, state):
        return np.tile(state["prior.mean"], (len(x), 1))


def fitted(quality=(0.9, 0.8, 0.2), cost=(4.0, 2.0, np.nan), **options):
    data = RoutingDataset(
        queries=("one", "two"),
        experts=("a", "b", "c"),
        quality=np.tile(quality, (2, 1)),
        cost=np.tile(cost, (2, 1)),
    )
    return Fixed(encoder=ENCODER, **options).fit(data)


def test_quality_decides_and_cost_is_weighed_in_shares_of_the_dearest():
    assert fitted().route("q").experts == ("a",)
    assert fitted().route("q", k=3).experts == ("a", "b", "c")
    assert fitted().route("q", cost_weight=0.3).primary == "b"  # 0.9 - 0.3 against 0.8 - 0.15
    assert fitted(cost_weight=0.3).route("q").primary == "b"
    assert fitted(cost_weight=0.3).route("q").reason.endswith("; cost weighed by 0.3")


def test_an_unknown_cost_counts_as_the_dearest():
    found = fitted().predict(["q"], cost_weight=1.0)
    assert found.utility[0] == pytest.approx([-0.1, 0.3, -0.8])
    assert fitted().route("q").candidates[2].cost is None


def test_ties_go_to_the_cheaper_expert_then_to_the_first():
    assert fitted(quality=(0.5, 0.5, 0.5)).route("q", k=3).experts == ("b", "a", "c")
    assert fitted(quality=(0.5, 0.5, 0.5), cost=(1, 1, 1)).route("q").primary == "a"


def test_an_excluded_expert_is_shown_last_with_its_reason():
    decision = fitted().route("q", excluded={"a": "switched off"})
    assert decision.primary == "b"
    assert decision.otherwise == "c"
    assert (decision.candidates[-1].expert, decision.candidates[-1].excluded) == (
        "a",
        "switched off",
    )


def test_nobody_left_to_ask_says_why():
    with pytest.raises(PromptError, match=r"no expert may be asked \(a: off\)"):
        fitted().route("q", experts=["a"], excluded={"a": "off"})


def test_an_expert_that_came_later_never_beats_the_best_known_one():
    decision = fitted().explain("q", experts=["new", "a", "b", "c"])
    assert decision.experts == ("a", "b", "new", "c")
    newcomer = next(c for c in decision.candidates if c.expert == "new")
    assert (newcomer.quality, newcomer.error) == (pytest.approx(0.6333, abs=1e-3), 0.5)


def test_an_expert_without_outcomes_is_left_to_the_prior():
    router = fitted(quality=(0.9, 0.8, np.nan))
    assert router.experts_ == ("a", "b")
    assert router.predict(["q"], experts=["c"]).error[0, 0] == 0.5


def test_few_outcomes_mean_a_wider_error():
    quality = np.full((40, 2), 0.5)
    quality[2:, 1] = np.nan
    data = RoutingDataset(
        queries=tuple("q" * i for i in range(1, 41)), experts=("a", "b"), quality=quality
    )
    error = Fixed(encoder=ENCODER).fit(data).predict(["q"]).error[0]
    assert error[1] > 3 * error[0]


@pytest.mark.parametrize("k", [0, -1])
def test_no_expert_at_all_is_refused(k):
    with pytest.raises(OptionError, match="k: "):
        fitted().route("q", k=k)


def test_a_router_needs_outcomes():
    with pytest.raises(DataError, match="there are no queries"):
        Fixed(encoder=ENCODER).fit(
            RoutingDataset(queries=(), experts=("a",), quality=np.empty((0, 1)))
        )


def test_a_long_query_is_read_at_both_ends():
    text = "a" * 10_000 + "end"
    assert len(window(text)) < 4100
    assert window(text).endswith("end")
    assert window("short \ud800") == "short ?"


def saved(tmp_path):
    return (
        BestOnAverage(encoder=ENCODER)
        .fit(RoutingDataset(queries=("one",), experts=("a", "b"), quality=np.array([[0.0, 1.0]])))
        .save(tmp_path / "router")
    )


def edit(folder, **changes):
    header = json.loads((folder / "router.json").read_text()) | changes
    (folder / "router.json").write_text(json.dumps(header))


def test_saving_leaves_two_files_and_no_pickle(tmp_path):
    assert sorted(p.name for p in saved(tmp_path).iterdir()) == ["router.json", "state.safetensors"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "router.json").unlink(), "holds no router"),
        (lambda f: (f / "state.safetensors").unlink(), "holds no router"),
        (lambda f: (f / "router.json").write_text("{"), "is damaged"),
        (lambda f: (f / "router.json").write_text("[]"), "is not of format 3"),
        (lambda f: (f / "router.json").write_bytes(b"\xff"), "is damaged"),
        (lambda f: (f / "state.safetensors").write_bytes(b"x" * 99), "is damaged"),
        (lambda f: edit(f, format=2), "is not of format 3"),
        (lambda f: edit(f, state="0" * 64), "are not of one training"),
        (lambda f: edit(f, hyperparameters={"neighbors": 3}), "does not fit this version"),
        (lambda f: edit(f, lineage={}), "does not fit this version"),
        (lambda f: edit(f, router="routers.data:RoutingDataset"), "is not a router"),
    ],
    ids=[
        "no header",
        "no state",
        "half a header",
        "a list",
        "no text",
        "no state inside",
        "another format",
        "another state",
        "unknown hyperparameter",
        "no encoder",
        "no router",
    ],
)
def test_a_damaged_artefact_is_refused(tmp_path, damage, message):
    folder = saved(tmp_path)
    damage(folder)
    with pytest.raises(ArtefactError, match=message):
        load_router(folder, encoder=ENCODER)


def test_another_encoder_is_refused(tmp_path):
    with pytest.raises(
        ArtefactError, match=r"was fitted with encoder .* use that encoder or train"
    ):
        load_router(saved(tmp_path), encoder=HashingEncoder(32))


def test_loading_as_another_class_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match="holds a BestOnAverage, not a CategoryRouter"):
        CategoryRouter.load(saved(tmp_path), encoder=ENCODER)
