"""Model names that name a router: ``router:NAME``, ``router:NAME@THRESHOLD``.

``router-NAME-THRESHOLD``, as RouteLLM has it (Ong et al., https://arxiv.org/abs/2406.18665), means
the same. NAME is the last part of the router's folder in the expert file, for example ``auto`` of
``routers/auto``, or the type of one that is fitted when the file is loaded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Protocol, Self, runtime_checkable

from experts_registry.errors import OptionError, UnknownNameError
from experts_registry.registry import Registry
from experts_registry.schema import Composition, Select
from routers.base import Router

__all__ = ["NamedRouter", "Thresholded", "routed_compositions", "trained_routers"]

_PREFIX = "router:"
_NUMBER = r"[0-9]{0,3}\.?[0-9]{1,20}(?:e-?[0-9]{1,2})?"
_OURS = re.compile(rf"router:(?P<name>.+?)(?:@(?P<threshold>{_NUMBER}))?")
_ROUTELLM = re.compile(rf"router-(?P<name>.+?)-(?P<threshold>{_NUMBER})")
_LONGEST = 200


@runtime_checkable
class Thresholded(Protocol):
    """A router that asks a strong expert from a win rate on, and a weak one below it."""

    def with_threshold(self, threshold: float) -> Router:
        """Return the same router with another threshold."""
        ...

    def calibrate(self, share: float) -> float:
        """Return the threshold that sends this share of queries to the strong expert."""
        ...


def routed_compositions(registry: Registry) -> Mapping[str, Composition]:
    """Return router name -> the composition that lends it its experts, strategy and limits.

    That is the first in the file with this router; another router of the same name is called by
    the name of its composition.
    """
    found: dict[str, Composition] = {}
    for composition in registry.compositions.values():
        router = composition.router
        if router is None:
            continue
        name = PurePath(router).name if isinstance(router, str) else router.type
        if name in found and found[name].router != router:
            name = composition.name
        found.setdefault(name, composition)
    return found


def trained_routers(registry: Registry) -> list[str]:
    """Return the names of the routers that can be asked now."""
    return [
        name
        for name, lender in routed_compositions(registry).items()
        if not isinstance(lender.router, str)
        or (registry.resolve(lender.router) / "router.json").exists()
    ]


@dataclass(frozen=True)
class NamedRouter:
    """A router that is asked by name: it alone decides, without guard, balance and exploration.

    Args:
        router: its name.
        threshold: win rate from which the strong expert is asked; None ranks all as usual.
        lender: the composition that it is of.
    """

    router: str
    threshold: float | None
    lender: Composition

    @classmethod
    def find(cls, model: str, registry: Registry) -> Self | None:
        """Read a model name; None where it names no router that is there."""
        if (
            model in registry.compositions
            or model in registry.experts
            or (read := _read(model)) is None
        ):
            return None
        name, threshold = read
        lender = routed_compositions(registry).get(name)
        return None if lender is None else cls(name, threshold, lender)

    @property
    def family(self) -> str:
        """The name without the threshold; who may ask for it may ask with any threshold."""
        return _PREFIX + self.router

    @property
    def model(self) -> str:
        """The whole name, written in one way whatever a client wrote."""
        return self.family if self.threshold is None else f"{self.family}@{self.threshold:.10g}"

    @cached_property
    def composition(self) -> Composition:
        """The lender, but for what would overrule the router.

        Raises:
            OptionError: the threshold is not in [0, 1].
        """
        select = self.lender.select.model_copy(update={"guard": False, "balance": 0.0})
        if self.threshold is not None:
            if self.threshold > 1:
                raise OptionError(
                    f"model: threshold {self.threshold:g} is not in [0, 1]; it is a win rate"
                )
            select = Select(guard=False, cost_weight=0.0)
        return self.lender.model_copy(
            update={"name": self.model, "baseline": None, "explore": None, "select": select}
        )

    def apply(self, router: Router | None) -> Router:
        """Return the router with the threshold.

        Raises:
            UnknownNameError: it was never trained.
            OptionError: it has no threshold.
        """
        if router is None:
            raise UnknownNameError(
                f"model {self.model!r}: router {self.router!r} is not trained yet; "
                f"'expert-composer train' does it, or ask {self.lender.name!r}"
            )
        if self.threshold is None:
            return router
        return self.thresholded(router).with_threshold(self.threshold)

    def thresholded(self, router: Router) -> Thresholded:
        """Return the router, where it has a threshold.

        Raises:
            OptionError: it has none.
        """
        if not isinstance(router, Thresholded):
            raise OptionError(
                f"model {self.model!r}: router {self.router!r} ranks experts by quality and has no "
                f"threshold; ask {self.family!r}, or one of type pairwise"
            )
        return router


def _read(model: str) -> tuple[str, float | None] | None:
    if len(model) > _LONGEST:
        return None
    match = _OURS.fullmatch(model) or _ROUTELLM.fullmatch(model)
    if match is None:
        return None
    threshold = match["threshold"]
    return match["name"], None if threshold is None else float(threshold)
