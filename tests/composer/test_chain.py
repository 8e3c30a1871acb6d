import pytest

from composer.chain import Chain
from experts_registry.errors import (
    ContentPolicyError,
    ContextLengthError,
    ExpertReplyError,
    ExpertRequestError,
    OffersError,
    PromptError,
)
from experts_registry.schema import Fallbacks
from routers.base import Candidate, Decision

NAMES = ("a", "b", "c", "d")
BROKEN = ExpertReplyError("broken")


def chain(among=NAMES, excluded=(), **fallbacks):
    candidates = tuple(
        Candidate(
            expert=n, quality=0.5, error=0.1, cost=0.0, excluded="x" if n in excluded else None
        )
        for n in NAMES
    )
    decision = Decision(("a",), (0.5,), "", candidates, cost_unit="usd")
    one = Chain(decision, Fallbacks(**fallbacks), among)
    one.ask("a")
    return one


def all_after(one, error):
    found = []
    while (name := one.after(error)) is not None:
        one.ask(name)
        found.append(name)
    return found


def test_without_fallbacks_the_next_best_two_are_asked():
    assert all_after(chain(), BROKEN) == ["b", "c"]
    assert all_after(chain(excluded=("b",)), BROKEN) == ["c", "d"]


def test_named_fallbacks_are_all_asked_and_nobody_twice():
    assert all_after(chain(any=("d", "a", "c")), BROKEN) == ["d", "c"]


def test_a_disabled_fallback_is_passed_over():
    assert all_after(chain(among=("a", "c"), any=("d", "c")), BROKEN) == ["c"]


def test_a_long_prompt_goes_to_its_own_chain_first():
    error = ContextLengthError("long")
    assert all_after(chain(context_length=("d",)), error) == ["d", "b", "c"]
    assert all_after(chain(context_length=("d",)), BROKEN) == ["b", "c"]


def test_what_a_filter_refused_is_asked_elsewhere_only_where_the_file_says_so():
    error = ContentPolicyError("filtered", 400)
    assert all_after(chain(), error) == []
    assert all_after(chain(content_policy=("d",)), error) == ["d"]


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ExpertRequestError("bad", 400), False),
        (ExpertRequestError("bad", 422), False),
        (PromptError("empty"), False),
        (ExpertRequestError("key", 401), True),
        (ExpertRequestError("gone", 404), True),
        (OffersError("no tools"), True),
    ],
)
def test_another_expert_is_asked_only_where_that_may_help(error, helps):
    assert bool(chain().after(error)) is helps
