"""From a prompt and a model name to a decision: who may be asked, and who should be."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from composer.eligible import exclusions, refusal, why_not
from composer.opened import Opened
from composer.router_names import NamedRouter, routed_compositions
from composer.selecting import Selecting, selecting
from composer.untrained import Load, without_router
from experts_registry.errors import (
    ArtefactError,
    ComposerError,
    ContextLengthError,
    RegistryError,
    UnknownNameError,
    unknown_name,
)
from experts_registry.registry import Registry
from experts_registry.schema import Composition, ExpertSpec, InlineRouter
from experts_registry.types import Embedder, Prompt
from routers.base import Decision, Router, load_router
from routers.building import build_router
from routers.data import RoutingDataset
from routers.transforms import ScoreTransform

__all__ = ["AUTO", "Routing"]

logger = logging.getLogger(__name__)

AUTO = "auto"  # exists in every registry: all enabled LLMs, where the file does not say otherwise
_QUICK_CHARACTERS = 1000  # a query that a quick encoder reads in less than a millisecond


class Routing:
    """Decides with the routers of one registry generation; each is loaded once, when needed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._routers: dict[str, Router | None] = {}
        self._selects: dict[str, Selecting] = {}
        self.opened = Opened(registry)
        self._lock = threading.RLock()

    def composition(self, model: str) -> Composition | None:
        """Return the composition of that name, or None where ``model`` is one expert.

        A router that is asked by name has one too, see `composer.router_names`.

        Raises:
            UnknownNameError: it is neither.
            OptionError: a router's threshold is not in [0, 1].
        """
        known = self._registry.compositions
        if model in known:
            return known[model]
        if model in self._registry.llms:
            return None
        if model == AUTO:
            return Composition(name=AUTO)
        if (expert := self._registry.experts.get(model)) is not None:
            raise UnknownNameError(
                f"model {model!r} is a {expert.kind}; ask an LLM or a composition"
            )
        if (named := NamedRouter.find(str(model), self._registry)) is not None:
            return named.composition
        routers = (f"router:{name}" for name in routed_compositions(self._registry))
        raise unknown_name("model", str(model), {AUTO, *known, *self._registry.llms, *routers})

    def decide(
        self,
        prompt: Prompt,
        model: str,
        *,
        avoid: Mapping[str, str] | None = None,
        load: Callable[[str], Load] = lambda _: (0, 0),
        sent: Prompt | None = None,
        coupling: Sequence[ScoreTransform] = (),
    ) -> Decision:
        """Choose experts for a prompt.

        Args:
            prompt: what is asked.
            model: a composition or an expert.
            avoid: experts to choose only where there are no others, and why.
            load: of an expert: calls in flight, and calls so far.
            sent: what is paid for, where passages come before the prompt.
            coupling: what retrieving is worth to each expert.
        """
        composition = self.composition(model)
        if composition is None:
            spec = self._registry.expert(model)
            if why := why_not(spec, prompt):
                raise refusal({model: why})
            return Decision((model,), (), "asked by name")
        prompt = prompt.limited(max_tokens=composition.limits.max_tokens)
        specs = self._members(composition)
        limit = composition.limits.usd_per_request
        sent = prompt if sent is None else sent.limited(max_tokens=prompt.sampling.max_tokens)
        excluded = exclusions(specs, prompt, usd=limit, sent=sent, avoid=avoid or {})
        if len(excluded) == len(specs):
            return self._stand_in(composition, prompt, refusal(excluded))
        named = NamedRouter.find(model, self._registry)
        router = self._router(composition) if named is None else self.named(named)
        if router is None:
            return without_router(composition, specs, excluded, sent, load)
        select = self._selecting(composition, router)
        decision = router.route(
            prompt.query,
            experts=list(specs),
            cost_weight=composition.select.cost_weight,
            excluded=excluded,
            transforms=(*coupling, *select.transforms),  # the guard has the last word
            policy=select.policy,
            temperature=select.temperature,
            budget=limit if router.cost_unit_ == "usd" else None,
        )
        shares = decision.weights or (1.0,)
        select.usage.add(dict(zip(decision.experts, shares, strict=False)))
        return decision

    def can_pay(self, model: str, experts: Sequence[str], prompt: Prompt, sent: Prompt) -> bool:
        """Tell whether passages leave one of these experts within the limit in USD.

        Args:
            model: the composition whose limit it is.
            experts: who would be sent them.
            prompt: what is asked; who is above the limit by that alone does not count.
            sent: the same after the passages.
        """
        composition = self.composition(model)
        if composition is None or (usd := composition.limits.usd_per_request) is None:
            return True
        most = composition.limits.max_tokens
        alone, full = prompt.limited(max_tokens=most), sent.limited(max_tokens=most)
        could = [s for s in map(self._registry.expert, experts) if not why_not(s, alone, usd)]
        return not could or any(not why_not(s, alone, usd, full) for s in could)

    def is_quick(self, prompt: Prompt, model: str) -> bool:
        """Tell whether to decide takes less than to wake a thread for it, and waits for nobody."""
        composition = self.composition(model)
        if composition is None:
            return True
        if composition.explore is not None or model not in {AUTO, *self._registry.compositions}:
            return False
        router = self._routers.get(composition.name)
        if router is None or composition.name not in self._selects:
            return composition.router is None
        is_short = len(prompt.query) <= _QUICK_CHARACTERS
        return is_short and getattr(router.encoder, "is_quick", False)

    def named(self, named: NamedRouter) -> Router:
        """Return a router that is asked by name; errors as of `NamedRouter.apply`."""
        return named.apply(self._router(named.lender))

    def _stand_in(self, composition: Composition, prompt: Prompt, error: ComposerError) -> Decision:
        """Return an expert that is named for prompts too long for all others."""
        llms = self._registry.llms
        if isinstance(error, ContextLengthError):
            for name in composition.fallbacks.context_length:
                if name in llms and not why_not(llms[name], prompt):
                    return Decision((name,), (), "the prompt is too long for the others")
        raise error

    def encoder(self) -> Embedder:
        """Return what turns queries into the vectors that routers read.

        Raises:
            RegistryError: the file names no encoder.
        """
        return self.opened.embedder(self._encoder_name())

    def reader(self) -> Embedder:
        """Return the same for what serves; it keeps the vectors of recent queries."""
        return self.opened.reader(self._encoder_name())

    def _encoder_name(self) -> str:
        spec = self._registry.encoder
        if spec is None:
            raise RegistryError(
                f"{self._registry.path}: encoder: a router needs one; register a retriever "
                "and name it under 'encoder:'"
            )
        return spec.name

    def close(self) -> None:
        """Free the retrievers and rerankers."""
        self.opened.close()

    def candidates(self, model: str) -> list[ExpertSpec]:
        """Return the experts that may come to answer a model.

        Raises:
            UnknownNameError: no composition or expert is called that.
        """
        composition = self.composition(model)
        if composition is None:
            return [self._registry.expert(model)]
        llms = self._registry.llms
        fallbacks = {n: llms[n] for n in composition.fallbacks.experts if n in llms}
        return [*{**self._members(composition), **fallbacks}.values()]

    def _members(self, composition: Composition) -> Mapping[str, ExpertSpec]:
        llms = self._registry.llms
        names = composition.experts or tuple(llms)
        members = {name: llms[name] for name in names if name in llms}
        if not members:
            raise RegistryError(
                f"{self._registry.path}: composition {composition.name!r} has no enabled LLM; "
                "add or enable one"
            )
        return members

    def _router(self, composition: Composition) -> Router | None:
        loaded = self._routers.get(composition.name)
        if loaded is not None or composition.router is None:
            return loaded  # without the lock, which is held while another one loads
        with self._lock:
            if composition.name not in self._routers:
                router = self._load(composition)
                self._routers[composition.name] = router and self._introduce(router, composition)
            return self._routers[composition.name]

    def _selecting(self, composition: Composition, router: Router) -> Selecting:
        if (ready := self._selects.get(composition.name)) is not None:
            return ready
        experts, name = tuple(self._members(composition)), composition.name
        if "@" in name and name not in self._registry.compositions:  # clients choose thresholds
            return selecting(router, composition, experts)
        with self._lock:
            if name not in self._selects:
                self._selects[name] = selecting(router, composition, experts)
            return self._selects[name]

    def _introduce(self, router: Router, composition: Composition) -> Router:
        """Tell a router what the file says of experts that it has no outcomes of."""
        specs = self._members(composition)
        new = {
            name: spec
            for name, spec in specs.items()
            if name not in (*router.experts_, *router.newcomers_)
            and (spec.domains or spec.published)
        }
        if not new:
            return router
        nothing = RoutingDataset(queries=(), experts=tuple(new), quality=np.empty((0, len(new))))
        return router.adopt(
            nothing,
            domains={name: spec.domains for name, spec in new.items()},
            published={name: spec.published for name, spec in new.items()},
        )

    def _load(self, composition: Composition) -> Router | None:
        config = composition.router
        if config is None:
            return None
        if isinstance(config, str):
            folder = self._registry.resolve(config)
            if not (folder / "router.json").exists():
                logger.warning(
                    "composition %s: %s holds no router yet; 'expert-composer train' makes one",
                    composition.name, folder,
                )  # fmt: skip
                return None
            return load_router(folder, encoder=self.reader())
        return self._fit(config, composition)

    def check(self, config: InlineRouter) -> tuple[Router, Path]:
        """Build an inline router without fitting it; return it with the outcomes it needs.

        Raises:
            ComposerError: its type, a hyperparameter or its outcomes are wrong.
        """
        options = dict(config.model_extra or {})
        if isinstance(options.get("categories"), str):  # a file, as `outcomes` is
            options["categories"] = str(self._registry.resolve(options["categories"]))
        router = build_router(config.type, self.reader(), options)
        if config.outcomes is None:
            raise ArtefactError(f"type {config.type!r} needs 'outcomes: <file>' to fit on")
        outcomes = self._registry.resolve(config.outcomes)
        if not outcomes.exists():
            raise ArtefactError(
                f"outcomes {outcomes} do not exist; 'expert-composer collect' makes them"
            )
        return router, outcomes

    def _fit(self, config: InlineRouter, composition: Composition) -> Router:
        router, outcomes = self.check(config)
        data = RoutingDataset.load(outcomes)
        router.fit(data)
        is_guarded = composition.baseline is not None and composition.select.guard
        if is_guarded or composition.select.neighbours is not None:
            router.rehearse(data, keep=composition.select.neighbours is not None)
        return router
