from dataclasses import replace

import numpy as np
import pytest

from composer.audit import audit, audit_tokens
from routers.data import RoutingDataset
from routers.outcomes import write_outcomes
from routers.testing import synthetic_outcomes


def sound():
    data = synthetic_outcomes(n=300)
    rng = np.random.default_rng(0)
    return replace(data, cost=data.cost * rng.uniform(0.5, 2, data.cost.shape))


def found(data, check):
    return next((f for f in audit(data) if f.check == check), None)


def test_sound_outcomes_raise_nothing():
    assert audit(sound()) == ()


def test_quality_that_never_changes_is_an_error():
    data = replace(sound(), quality=np.ones((300, 3)))
    assert found(data, "quality").severity == "error"
    same = replace(sound(), quality=np.repeat(sound().quality[:, :1], 3, axis=1))
    assert found(same, "quality").severity == "error"
    assert "makes no difference" in found(same, "quality").message
    nothing = replace(sound(), quality=np.full((300, 3), np.nan))
    assert found(nothing, "quality").severity == "error"


def test_the_worst_comes_first():
    severities = [f.severity for f in audit(replace(sound(), quality=np.ones((300, 3))))]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_overlap_between_given_splits_is_told_apart_by_kind():
    data = sound()
    queries = list(data.queries)
    queries[200] = queries[0].upper() + "!"
    queries[201] = queries[1] + " indeed"
    split = ["train"] * 200 + ["test"] * 100
    given = replace(data, queries=tuple(queries), split=tuple(split))
    assert found(given, "exact overlap").examples == ("200",)
    assert found(given, "n-gram overlap").examples == ("201",)
    assert found(replace(given, split=()), "exact overlap") is None


def test_duplicate_queries_are_counted():
    data = sound()
    twice = replace(data, queries=(*data.queries[:290], *data.queries[:10]))
    assert found(twice, "duplicate queries").count == 10


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_label_noise_is_estimated_from_alike_queries(rate):
    rng = np.random.default_rng(0)
    data = synthetic_outcomes(n=1000)
    truth = data.quality[np.arange(1000) % 500]
    flipped = np.where(rng.random(truth.shape) < rate, 1 - truth, truth)
    noisy = replace(data, queries=data.queries[:500] * 2, quality=flipped)
    finding = found(noisy, "label noise")
    if rate:
        assert "about 20% of" in finding.message or "about 19% of" in finding.message
    else:
        assert finding is None


def test_missing_cells_name_the_experts_that_lack_them():
    quality = sound().quality.copy()
    quality[:200, 2] = np.nan
    finding = found(replace(sound(), quality=quality), "missing cells")
    assert (finding.severity, finding.count) == ("warning", 200)
    assert "expert-2" in finding.message
    quality[3:, :] = sound().quality[3:]
    assert found(replace(sound(), quality=quality), "missing cells").severity == "note"


def test_an_expert_that_never_differs_is_named_with_its_twin():
    quality = sound().quality.copy()
    quality[:, 1] = quality[:, 0]
    finding = found(replace(sound(), quality=quality), "experts alike")
    assert finding.examples == ("expert-0", "expert-1")
    assert finding.severity == "warning"
    quality[0, 1] = 1 - quality[0, 1]
    assert found(replace(sound(), quality=quality), "experts alike").severity == "note"


def test_constant_costs_are_told_but_not_of_active_parameters():
    constant = synthetic_outcomes(n=300)
    assert found(constant, "constant costs").count == 3
    assert found(replace(constant, cost_unit="B params"), "constant costs") is None


def test_unknown_costs_are_told():
    cost = np.full((300, 3), np.nan)
    assert found(replace(sound(), cost=cost), "costs").severity == "note"
    cost[:, 0] = sound().cost[:, 0]
    assert found(replace(sound(), cost=cost), "costs").examples == ("expert-1", "expert-2")


def test_small_categories_and_missing_ones_are_told():
    category = ("rare",) * 5 + ("",) * 7 + sound().category[12:]
    data = replace(sound(), category=category)
    assert found(data, "small categories").examples == ("rare",)
    assert found(data, "categories").count == 7


def test_token_counts_that_never_change_are_told(tmp_path):
    rows = [
        {
            "query_id": str(i),
            "query": f"query {i}",
            "expert": expert,
            "quality": float(i % 2),
            "prompt_tokens": 100,
            "completion_tokens": 7 if expert == "made-up" else i,
        }
        for i in range(30)
        for expert in ("made-up", "counted")
    ]
    findings = audit_tokens(write_outcomes(tmp_path / "o.parquet", rows))
    assert [(f.message.split()[0], f.examples) for f in findings] == [
        ("prompt_tokens", ("counted", "made-up")),
        ("completion_tokens", ("made-up",)),
    ]


def test_outcomes_without_token_counts_are_fine(tmp_path):
    path = RoutingDataset.save(sound(), tmp_path / "o.parquet")
    assert audit_tokens(path) == ()
    assert audit_tokens(tmp_path / "o.jsonl") == ()
