"""The retrieval gate: whether an expert is given passages for a question, and of which store.

ExpertRAG (Gumaan, arXiv:2504.08744) marginalises over experts and over retrieving or not; with
frozen experts its best decision is to take the arm, an expert with or without passages, of

    argmax Q(right | question, expert, store) - price(expert, store)

Q comes from calibrated logistic heads on outcomes of all arms. Where the question does not tell
when passages help, on queries held out, the better constant policy is deployed (`routers.gates`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from experts_registry.errors import ArtefactError, DataError
from experts_registry.types import Embedder, FloatArray, TokenLogprob
from routers.arms import RetrievalDecision
from routers.features import window
from routers.gates import reasons
from routers.gates.artefact import arms_digest, read_gate, write_gate
from routers.gates.data import GateData
from routers.gates.fitting import decided, fit_state, price_of
from routers.gates.guard import Verdict
from routers.gates.price import RetrievalPrice
from routers.gates.rating import mean_quality, rated
from routers.gates.scoring import Scoring, Search
from routers.gates.worth import RetrievalWorth, worth

__all__ = ["Gate"]

_FEWEST = 30  # queries below which heads cannot even be cross-validated


@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """Decides between an expert alone and the same expert with passages of a store.

    Args:
        experts: (m) it has outcomes of.
        stores: (s) they were given passages from.
        encoder: embeds questions.
        price: what retrieving is charged.
        reads_search: whether it wants to know how near the nearest passages are.
        passages: how many the experts were given.
        depth: similarities of a search that it reads.
        bands: (m) half-width around indifference within which a draft is asked for.
        verdicts: (m) whether the gate has skill, and what is deployed where it has none.
        lineage: digests of what it was trained on, by which it is known.
        state: the heads, and what they said of queries that they had not seen.
    """

    experts: tuple[str, ...]
    stores: tuple[str, ...]
    encoder: Embedder
    price: RetrievalPrice
    reads_search: bool
    passages: int
    depth: int
    bands: tuple[float, ...]
    verdicts: tuple[Verdict, ...]
    lineage: Mapping[str, Any]
    state: Mapping[str, FloatArray] = field(repr=False)

    @classmethod
    def fit(
        cls,
        data: GateData,
        encoder: Embedder,
        *,
        price: RetrievalPrice | None = None,
        texts: Mapping[str, Iterable[str]] | None = None,
        reads_search: bool | None = None,
        seed: int = 0,
    ) -> Self:
        """Learn from outcomes of experts with and without passages.

        Args:
            data: the outcomes.
            encoder: embeds questions.
            price: of retrieving; two points of a hundred a time by default.
            texts: of the passages by store, for how rare a question's words are there.
            reads_search: by default where the outcomes tell what searches found.
            seed: of the cross-validation.

        Raises:
            DataError: there are too few queries.
        """
        if len(data) < _FEWEST:
            raise DataError(
                f"outcomes: {len(data)} queries to train on are too few for a gate; collect more, "
                f"until there are {_FEWEST} beside those that are held out"
            )
        if reads_search is None:
            reads_search = bool((~np.isnan(data.search)).any())
        x = encoder.embed([window(q) for q in data.queries], role="query")
        state = fit_state(data, x, reads_search=reads_search, texts=texts or {}, seed=seed)
        price = price or RetrievalPrice()
        found = decided(state, price)
        return cls(
            experts=data.experts,
            stores=data.stores,
            encoder=encoder,
            price=price,
            reads_search=reads_search,
            passages=data.passages,
            depth=data.depth,
            bands=tuple(band for band, _ in found),
            verdicts=tuple(verdict for _, verdict in found),
            lineage={
                "encoder": encoder.digest,
                "data": data.digest,
                "arms": arms_digest(data.experts, data.stores),
                "queries": len(data),
                "seen": data.marks,
            },
            state=state,
        )

    def repriced(self, price: RetrievalPrice) -> Self:
        """Return the same gate at another price, judged anew at it."""
        found = decided(self.state, price)
        bands, verdicts = tuple(b for b, _ in found), tuple(v for _, v in found)
        return replace(self, price=price, bands=bands, verdicts=verdicts)

    @cached_property
    def scoring(self) -> Scoring:
        """What the heads say."""
        return Scoring(self.state, self.stores, self.reads_search, self.depth)

    # -- deciding ---------------------------------------------------------------------------------

    def decide(
        self,
        query: str | FloatArray,
        experts: Sequence[str],
        *,
        stores: Sequence[str],
        searched: Search | None = None,
        margins: Mapping[str, float] | None = None,
        draft: Sequence[TokenLogprob] | None = None,
        k: int | None = None,
    ) -> RetrievalDecision:
        """Decide for the first of these experts; see `table`."""
        return self.table(
            query, experts[:1], stores=stores, searched=searched, margins=margins,
            drafts={} if draft is None else {experts[0]: draft}, k=k,
        )[experts[0]]  # fmt: skip

    def table(
        self,
        query: str | FloatArray,
        experts: Sequence[str],
        *,
        stores: Sequence[str],
        searched: Search | None = None,
        margins: Mapping[str, float] | None = None,
        drafts: Mapping[str, Sequence[TokenLogprob]] | None = None,
        k: int | None = None,
    ) -> dict[str, RetrievalDecision]:
        """Decide for each expert whether it would be given passages, and from where.

        Args:
            query: a question, or its embedding (d,), which tells less.
            experts: who may be asked, one that the gate has not seen among them.
            stores: that may be read.
            searched: similarities of the best passages of each store that was searched, best
                first; a store with none, or with none as near as in training, is not read.
            margins: by which each store's retriever leads the next one.
            drafts: log-probabilities of the beginning of an expert's answer without passages.
            k: how many passages to retrieve; by default as many as in training.
        """
        looked = searched or {}
        z = self.scoring.read(query, self.encoder, looked, margins or {})
        found = [s for s in stores if self.scoring.is_worth_reading(s, looked.get(s))]
        taken = {name: self._decided(name, z, found, (drafts or {}).get(name)) for name in experts}
        k = self.passages if k is None else k
        return {n: replace(d, k=k if d.is_retrieving else 0) for n, d in taken.items()}

    def wants_draft(self, decision: RetrievalDecision) -> bool:
        """Say whether a draft may change a decision that was made without one."""
        arms = {rated.arm: rated.quality - rated.cost for rated in decision.arms}
        alone = next((arm for arm in arms if arm.store is None), None)
        if decision.stage != "gate" or alone is None or alone.expert not in self.experts:
            return False
        gain = max(v for arm, v in arms.items() if arm.store) - arms[alone]
        return abs(gain) < self.bands[self.experts.index(alone.expert)]

    def transform(self, table: Mapping[str, RetrievalDecision]) -> RetrievalWorth:
        """Return a score transform by which choosing expert and passages is one argmax."""
        return RetrievalWorth({name: worth(decision) for name, decision in table.items()})

    def _decided(
        self, name: str, z: FloatArray, stores: Sequence[str],
        draft: Sequence[TokenLogprob] | None,
    ) -> RetrievalDecision:  # fmt: skip
        known = [store for store in stores if store in self.stores]
        if not stores:
            return RetrievalDecision(store=None, stage="gate", reason=reasons.NOTHING_FOUND)
        if name not in self.experts or not known:
            return self._unseen(name, known or stores)
        e = self.experts.index(name)
        quality, error = self.scoring.chances(z, e)
        stage, verdict = "gate", self.verdicts[e]
        if not verdict.has_skill:
            return self._constant(name, known, verdict)
        if draft is not None and self.bands[e]:
            sure = self.scoring.after_draft(quality, draft, e)
            quality[0], stage = (quality[0], stage) if sure is None else (sure, "draft")
        arms = rated(name, known, self.stores, quality, error, price_of(self.state, self.price, e))
        return RetrievalDecision(
            store=arms[0].arm.store, stage=stage, arms=arms, reason=reasons.compared(arms, stage)
        )

    def _constant(self, name: str, stores: Sequence[str], verdict: Verdict) -> RetrievalDecision:
        """Take the arm that was best on average: the question does not tell."""
        e = self.experts.index(name)
        quality, error = mean_quality(self.state, [e])
        arms = rated(name, stores, self.stores, quality, error, price_of(self.state, self.price, e))
        return RetrievalDecision(
            store=arms[0].arm.store, stage="guard", arms=arms,
            reason=reasons.no_skill(arms[0], verdict),
        )  # fmt: skip

    def _unseen(self, name: str, stores: Sequence[str]) -> RetrievalDecision:
        """Do what was best on average for the experts and stores that there are outcomes of."""
        quality, error = mean_quality(self.state, range(len(self.experts)))
        price = np.mean([price_of(self.state, self.price, e) for e in range(len(self.experts))], 0)
        known = [store for store in stores if store in self.stores]
        arms = rated(name, known or self.stores, self.stores, quality, error, price)
        best = arms[0].arm.store
        # Of a store without outcomes others are expected to say whether any is worth reading.
        chosen = best if known or best is None else stores[0]
        what = f"expert {name!r}" if name not in self.experts else f"store {stores[0]!r}"
        return RetrievalDecision(
            store=chosen, stage="guard", arms=arms if known else (),
            reason=reasons.unseen(what, chosen, arms),
        )  # fmt: skip

    # -- keeping ----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``gate.json`` and ``gate.safetensors`` into a folder."""
        header = {
            "experts": self.experts,
            "stores": self.stores,
            "price": asdict(self.price),
            "reads_search": self.reads_search,
            "passages": self.passages,
            "depth": self.depth,
            "bands": self.bands,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "lineage": dict(self.lineage),
        }
        write_gate(Path(folder), header, self.state)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, *, encoder: Embedder) -> Self:
        """Read a saved gate.

        Raises:
            ArtefactError: there is none, it is damaged, or it is of another encoder or version.
        """
        folder = Path(folder)
        header, state = read_gate(folder)
        try:
            gate = cls(
                experts=tuple(header["experts"]),
                stores=tuple(header["stores"]),
                encoder=encoder,
                price=RetrievalPrice(**header["price"]),
                reads_search=header["reads_search"],
                passages=header["passages"],
                depth=header["depth"],
                bands=tuple(header["bands"]),
                verdicts=tuple(Verdict(**verdict) for verdict in header["verdicts"]),
                lineage=header["lineage"],
                state=state,
            )
            gate._check(folder)
        except (KeyError, TypeError) as error:
            raise ArtefactError(
                f"{folder}: does not fit this version of the gate ({error}); train it again"
            ) from error
        return gate

    def _check(self, folder: Path) -> None:
        if (fitted := self.lineage["encoder"]) != self.encoder.digest:
            raise ArtefactError(
                f"{folder}: was fitted with encoder {fitted[:12]}, not "
                f"{self.encoder.digest[:12]}; use that encoder or train it again"
            )
        shape = (len(self.experts), 1 + len(self.stores))
        named = self.lineage["arms"] == arms_digest(self.experts, self.stores)
        if not named or self.state["held.chance"].shape[1:] != shape:
            raise ArtefactError(f"{folder}: names other arms than it learned; train it again")
