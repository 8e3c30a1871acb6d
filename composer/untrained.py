"""Whom to ask where no router is trained."""

from collections.abc import Callable, Mapping

from composer.eligible import expected_cost
from experts_registry.schema import Composition, ExpertSpec
from experts_registry.types import Prompt
from routers.base import Candidate, Decision

__all__ = ["Load", "without_router"]

Load = tuple[int, int]  # calls of an expert: in flight, and so far


def without_router(
    composition: Composition,
    specs: Mapping[str, ExpertSpec],
    excluded: Mapping[str, str],
    prompt: Prompt,
    load: Callable[[str], Load],
) -> Decision:
    """Ask the baseline, else the cheapest: nothing was learned that could decide."""

    def price(name: str) -> float:
        return expected_cost(specs[name], prompt)

    def rank(name: str) -> tuple[bool, bool, float]:
        return name in excluded, name != composition.baseline, price(name)

    def kind(name: str) -> tuple[object, ...]:
        spec = specs[name]
        options = {k: v for k, v in spec.options.items() if k not in ("base_url", "api_key_env")}
        return (*rank(name), spec.backend, spec.model, options)

    names = sorted(specs, key=rank)
    # Deployments of one model at one price are as good as each other: spread the load.
    twins = [name for name in names if kind(name) == kind(names[0])]
    names = [*(order := sorted(twins, key=load)), *(n for n in names if n not in order)]
    candidates = tuple(
        Candidate(expert=n, quality=0.5, error=0.5, cost=price(n), excluded=excluded.get(n))
        for n in names
    )
    rule = "the baseline" if names[0] == composition.baseline else "the cheapest, first in the file"
    if len(twins) > 1:
        rule = f"the cheapest, of {len(twins)} with the same model the least busy"
    reason = f"no router is trained for {composition.name!r}: {rule}"
    return Decision((names[0],), (0.5,), reason, candidates, cost_unit="usd")
