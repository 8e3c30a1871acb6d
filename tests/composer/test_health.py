from dataclasses import replace

import numpy as np
import pytest

from composer.health import RoutingLog, check_health, is_collapsed, usage_entropy

EXPERTS = ("general", "law", "math", "code")
DOMAINS = ("chat", "law", "math", "code")


def sound(seed=0, n=1200):
    """Everyone serves their own domain, and the general one a fifth of everything."""
    rng = np.random.default_rng(seed)
    # Law is rare; its own expert gets it all the same.
    domain = rng.choice(4, size=n, p=[0.3, 0.1, 0.3, 0.3])
    chosen = np.where(rng.random(n) < 0.2, 0, domain)
    right = np.where(domain[:, None] == np.arange(4), 0.9, 0.4)
    right[:, 0] = 0.6
    return RoutingLog(
        experts=EXPERTS,
        chosen=chosen,
        domains=tuple(DOMAINS[d] for d in domain),
        scores=np.clip(right + rng.normal(0, 0.1, (n, 4)), 0.05, 0.95),
        quality=(rng.random((n, 4)) < right).astype(float),
        shared="general",
        own=dict(zip(DOMAINS[1:], EXPERTS[1:], strict=True)),
    )


def collapsed(log):
    rng = np.random.default_rng(99)  # the general one gets nearly everything but half of law
    own = np.array([EXPERTS.index(log.own.get(d, "general")) for d in log.domains])
    is_rare = np.array(log.domains) == "law"
    kept = rng.random(len(own)) < np.where(is_rare, 0.5, 0.05)
    return replace(log, chosen=np.where(kept, own, 0))


def degraded(log):
    chosen = np.array([EXPERTS.index(log.own.get(d, "law")) for d in log.domains])
    math = np.array(log.domains) == "math"
    half = np.arange(len(chosen)) % 2 == 0
    return replace(log, chosen=np.where(math & half, 0, chosen))


def underfitted(log):
    rare = np.array(log.domains) == "law"
    chosen = np.where(rare, 0, log.chosen)
    is_half = (np.array(log.domains) == "chat") & (np.arange(len(rare)) % 2 == 0)
    return replace(log, chosen=np.where(is_half, 1, chosen))  # so that law's expert is in use


def misscaled(log):
    scores = log.scores.copy()
    scores[:, 0] = 0.6 + 0.01 * (scores[:, 0] - 0.6)
    return replace(log, scores=scores)


def redundant(log):
    quality = log.quality.copy()
    quality[:, 3] = quality[:, 2]
    return replace(log, quality=quality)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda log: log, set()),
        (collapsed, {"collapse"}),
        (degraded, {"degradation"}),
        (underfitted, {"underfitting"}),
        (misscaled, {"score scale"}),
        (redundant, {"redundancy"}),
    ],
    ids=["sound", "collapsed", "degraded", "underfitted", "misscaled", "redundant"],
)
@pytest.mark.parametrize("seed", range(3))
def test_each_planted_fault_raises_exactly_its_verdict(fault, expected, seed):
    checks = check_health(fault(sound(seed)))
    assert {check.check for check in checks if check.raised} == expected
    assert all(check.raised is not None for check in checks)
    assert all(check.subjects for check in checks if check.raised)


def test_a_small_log_without_outcomes_says_nothing():
    checks = check_health(RoutingLog(experts=("a", "b"), chosen=np.zeros(9, dtype=int)))
    assert {check.raised for check in checks} == {None}


def test_the_verdict_names_who_is_concerned():
    by_name = {c.check: c for c in check_health(redundant(sound()))}
    assert set(by_name["redundancy"].subjects) == {"math", "code"}
    by_name = {c.check: c for c in check_health(underfitted(sound()))}
    assert by_name["underfitting"].subjects == ("law",)
    assert by_name["underfitting"].value == pytest.approx(1.0)


def test_entropy_and_collapse_by_hand():
    even = np.repeat(np.arange(4), 50)
    assert usage_entropy(even, 4) == pytest.approx(np.log(4))
    assert usage_entropy(np.zeros(9, dtype=int), 4) == 0
    assert is_collapsed(even, 4) is False
    assert is_collapsed(np.zeros(200, dtype=int), 4) is True
    assert is_collapsed(np.zeros(199, dtype=int), 4) is None
