"""Learn an adapter batch by batch, evaluate it on held-out queries, stop when it no longer gains.

The method is that of the experts of RouterRetriever (Lee et al., arXiv 2409.02685, section 4.1):
with frozen passages k, temperature tau, and the passages of the other queries as negatives,

    loss = -log exp(q . k+ / tau) / sum over k of exp(q . k / tau)

to which mined negatives are added.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from composer.retriever_training.batches import Batch, Learning, Rows, batches
from composer.retriever_training.checkpoint import Checkpoint
from composer.retriever_training.judging import ndcg
from composer.retriever_training.lora import Adapted
from composer.retriever_training.material import Material
from composer.retriever_training.settings import Settings
from experts_registry.types import FloatArray

__all__ = ["Held", "Loop"]


@dataclass(frozen=True)
class Held:
    """What is evaluated on.

    Args:
        queries: texts that are not trained on.
        passages: texts that are ranked.
        vectors: (p, d) of the base, of these passages.
        relevant: of each query, row of one of these passages -> grade.
    """

    queries: Sequence[str]
    passages: Sequence[str]
    vectors: FloatArray
    relevant: Sequence[Mapping[int, int]]


class Loop:
    """A training that can go on from where it stopped.

    Args:
        adapted: what learns.
        material: texts that batches are of.
        vectors: (p, d) of the base, of the material's passages.
        learning: what batches are drawn from.
        held: what is evaluated on.
        settings: how.
    """

    def __init__(
        self,
        adapted: Adapted,
        material: Material,
        vectors: FloatArray,
        learning: Learning,
        held: Held,
        settings: Settings,
    ) -> None:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        self._adapted, self._material, self._settings = adapted, material, settings
        self._vectors = torch.from_numpy(vectors)
        self._learning, self._held = learning, held
        self._masked = _MaskedCosine()
        self._loss: Any = MultipleNegativesRankingLoss(
            None, scale=1 / settings.temperature, similarity_fct=self._masked
        )
        self._optimizer = torch.optim.AdamW(
            adapted.parameters, lr=settings.learning_rate, weight_decay=0.0
        )

    def begun(self) -> Checkpoint:
        """Return the state before the first batch: the base's."""
        learned = self._adapted.state()
        quality = self.evaluate()[None]
        return Checkpoint(0, learned, {}, learned, 0, quality, (), 0.0)

    def run(
        self,
        state: Checkpoint,
        *,
        keep: Callable[[Checkpoint], None],
        advance: Callable[[str], None],
    ) -> Checkpoint:
        """Learn until nothing is gained any more.

        Args:
            state: where to go on.
            keep: is called with the state after each evaluation.
            advance: is called with a note after each batch.
        """
        self._restore(state)
        settings, note, losses, began = self._settings, _note(state), [], time.monotonic()
        rest = islice(self._batches(), state.step, settings.steps)
        if self._is_over(state):
            return state
        for step, batch in enumerate(rest, start=state.step + 1):
            losses.append(self._learn(batch, step))
            if step % settings.evaluate_every == 0 or step == settings.steps:
                now = time.monotonic()
                spent = state.seconds + now - began
                state = replace(state, step=step, optimizer=self._moments(), seconds=spent)
                loss = float(np.mean(losses))
                state = state.evaluated(self.evaluate(), loss, self._adapted.state())
                keep(state)
                note, losses, began = _note(state), [], now
            advance(note)
            if self._is_over(state):
                break
        return state

    def evaluate(self) -> FloatArray:
        """Return nDCG@10 on each held-out query (n,)."""
        held = self._held
        queries = self._adapted.embed(held.queries, role="query")
        passages = held.vectors
        if self._settings.side == "both":
            passages = self._adapted.embed(held.passages, role="passage")
        return ndcg(queries, passages, held.relevant)

    def _batches(self) -> Any:
        s = self._settings
        return batches(self._learning, size=s.batch_size, negatives=s.negatives, seed=s.seed)

    def _is_over(self, state: Checkpoint) -> bool:
        since = len(state.history) - 1 - int(state.history.mean(axis=1).argmax())
        return since >= self._settings.patience or state.step >= self._settings.steps

    def _learn(self, batch: Batch, step: int) -> float:
        settings, texts = self._settings, self._material
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, settings)
        # Dropout then depends on the batch alone, not on where a run began.
        torch.manual_seed(settings.seed * 1_000_003 + step)
        queries = self._adapted.vectors([texts.queries[i] for i in batch.queries], role="query")
        rows, is_relevant = [*batch.passages], [batch.is_relevant]
        if settings.side == "query" and settings.shared:
            rows.append(self._shared(step))
            is_relevant.append(self._is_relevant(batch, rows[-1]))
        self._masked.is_out = torch.from_numpy(np.hstack(is_relevant))
        columns = [self._passages(each) for each in rows]
        loss = self._loss.compute_loss_from_embeddings([queries, *columns], None)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._adapted.parameters, 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def _shared(self, step: int) -> Rows:
        """Draw passages that every query of a batch is compared with."""
        rng = np.random.default_rng([self._settings.seed, step, 1])
        return rng.permutation(len(self._vectors))[: self._settings.shared]

    def _is_relevant(self, batch: Batch, rows: Rows) -> NDArray[np.bool_]:
        relevant = self._learning.relevant
        return np.array([[row in relevant[query] for row in rows] for query in batch.queries])

    def _passages(self, rows: Any) -> torch.Tensor:
        if self._settings.side == "query":
            return self._vectors[rows]
        texts = [self._material.passages[i] for i in rows]
        return self._adapted.vectors(texts, role="passage")

    def _moments(self) -> dict[str, torch.Tensor]:
        return {
            f"{i}/{name}": value.detach().clone()
            for i, moments in self._optimizer.state_dict()["state"].items()
            for name, value in moments.items()
        }

    def _restore(self, state: Checkpoint) -> None:
        self._adapted.restore(state.learned)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.optimizer.items():
            i, _, name = key.partition("/")
            moments.setdefault(int(i), {})[name] = value.clone()
        if moments:
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": moments, "param_groups": groups})


class _MaskedCosine:
    """Cosine of unit rows; passages that are known to answer a query are no negatives of it."""

    is_out: torch.Tensor

    def __call__(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        return (queries @ passages.T).masked_fill(self.is_out, -torch.inf)


def _rate(step: int, settings: Settings) -> float:
    """Return the share of the learning rate: rising at first, then falling to 0, linearly."""
    rising = settings.warmup * settings.steps
    if step < rising:
        return step / rising
    return (settings.steps - step + 1) / (settings.steps - rising + 1)


def _note(state: Checkpoint) -> str:
    means = state.history.mean(axis=1)
    loss = f"loss {state.losses[-1]:.2f}, " if state.losses else ""
    return f"{loss}held-out nDCG@10 {means[-1]:.3f} (base {means[0]:.3f}, best {means.max():.3f})"
