"""Train a retriever for a domain and judge it beside its base, on queries it never saw."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from composer.progress import steps
from composer.retriever_training.batches import Learning
from composer.retriever_training.checkpoint import Checkpoint
from composer.retriever_training.judging import Judgment, cross_fitted, judged, ndcg, optimism
from composer.retriever_training.loop import Held, Loop
from composer.retriever_training.lora import Adapted
from composer.retriever_training.material import Material, Parts, held_out
from composer.retriever_training.negatives import hard_negatives
from composer.retriever_training.settings import Settings
from composer.retriever_training.workshop import Workshop
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray

__all__ = ["FILES", "Course", "Trained"]

_RANKED = 1500  # passages that an encoder of both sides ranks at each evaluation
REPORT = "training.json"
FILES = ("adapter_config.json", "adapter_model.safetensors", REPORT)


@dataclass(frozen=True)
class Trained:
    """A retriever that was trained; its files are in the workshop.

    Args:
        judgment: beside the base.
        parts: rows of the queries that it learned from, and was judged on.
        report: what ``training.json`` says.
        vectors: (p, d) of the base, of all passages.
        base_digest: identifies these vectors.
    """

    judgment: Judgment
    parts: Parts
    report: Mapping[str, Any]
    vectors: FloatArray
    base_digest: str


@dataclass(frozen=True)
class Course:
    """What is trained, on what, and how.

    Args:
        spec: of the base.
        base: the same, opened.
        material: what is learned, and judged on.
        settings: how.
    """

    spec: ExpertSpec
    base: Embedder
    material: Material
    settings: Settings

    def fit(self, workshop: Workshop, *, quiet: bool = False) -> Trained:
        """Train an adapter; a training that was stopped goes on.

        Args:
            workshop: where it is kept.
            quiet: show no progress.

        Raises:
            ModelSourceError: the base cannot be trained, or a package is missing.
            DataError: the disk is full.
        """
        settings, material = self.settings, self.material
        with _fixed(settings):
            parts = held_out(material, share=settings.share, seed=settings.seed)
            adapted = Adapted(self.spec, settings.lora, seed=settings.seed)
            adapted.check(self.base)
            vectors = self._vectors(workshop, quiet)
            held = self._held(parts, vectors)
            loop = Loop(adapted, material, vectors, self._learning(parts, vectors), held, settings)
            state = self._run(loop, parts, workshop, quiet)
            adapted.restore(state.best)
            found = self._judgment(adapted, parts, vectors, held, state)
            report = self._report(parts, state, found)
        for name, content in adapted.files(state.best).items():
            workshop.write(name, content)
        workshop.write(REPORT, json.dumps(report, indent=2).encode())
        return Trained(found, parts, report, vectors, self._passage_digest)

    def _vectors(self, workshop: Workshop, quiet: bool) -> FloatArray:
        texts = self.material.passages
        # Of the texts alone: other settings and other queries take what an earlier run computed.
        key = _digest(self._passage_digest, *texts)
        with steps(workshop.parts(texts), "passages", quiet=quiet) as advance:
            return workshop.embed(self.base, texts, role="passage", key=key, advance=advance)

    @property
    def _passage_digest(self) -> str:
        return str(getattr(self.base, "passage_digest", self.base.digest))

    def _learning(self, parts: Parts, vectors: FloatArray) -> Learning:
        found = hard_negatives(
            self.base.embed([self.material.queries[i] for i in parts.train], role="query"),
            vectors,
            [self.material.relevant[i] for i in parts.train],
            count=self.settings.mined,
            ceiling=self.settings.ceiling,
        )
        return Learning(parts.train, self.material.relevant, found)

    def _held(self, parts: Parts, vectors: FloatArray) -> Held:
        """Return what is evaluated on: every passage, or the hardest where all take too long."""
        queries = [self.material.queries[i] for i in parts.held]
        relevant = [self.material.relevant[i] for i in parts.held]
        rows = np.arange(len(vectors))
        if self.settings.side == "both" and len(rows) > _RANKED:
            nearest = (self.base.embed(queries, role="query") @ vectors.T).max(axis=0)  # (p,)
            nearest[[row for known in relevant for row in known]] = np.inf
            most = max(_RANKED, int(np.isinf(nearest).sum()))
            rows = np.sort(np.argsort(-nearest, kind="stable")[:most])
        place = {int(row): i for i, row in enumerate(rows)}
        return Held(
            queries=queries,
            passages=[self.material.passages[row] for row in rows],
            vectors=vectors[rows],
            relevant=[{place[row]: grade for row, grade in known.items()} for known in relevant],
        )

    def _run(self, loop: Loop, parts: Parts, workshop: Workshop, quiet: bool) -> Checkpoint:
        settings = self.settings
        what = [self.base.digest, self.material.digest, settings.model_dump_json()]
        key = _digest(*what, *map(str, parts.held))
        state = Checkpoint.load(workshop, key)
        if state is None:
            state = loop.begun()
            state.save(workshop, key)
        with steps(settings.steps - state.step, "batches", quiet=quiet) as advance:
            return loop.run(state, keep=lambda now: now.save(workshop, key), advance=advance)

    def _judgment(
        self, adapted: Adapted, parts: Parts, vectors: FloatArray, held: Held, state: Checkpoint
    ) -> Judgment:
        history, seed = state.history, self.settings.seed
        if len(held.passages) < len(self.material.passages) and state.best_step:
            # Evaluations ranked the hardest passages only; the last word is that of all of them.
            relevant = [self.material.relevant[i] for i in parts.held]
            before = self.base.embed(held.queries, role="query")
            after = adapted.embed(held.queries, role="query")
            passages = adapted.embed(self.material.passages, role="passage")
            history = np.array([ndcg(before, vectors, relevant), ndcg(after, passages, relevant)])
            # The same queries told when to stop: what that flatters is known of the hardest only.
            gain = history[1] - history[0] - optimism(state.history, seed)
            return judged(history, gain, seed)
        return judged(history, cross_fitted(history, seed), seed)

    def _report(self, parts: Parts, state: Checkpoint, found: Judgment) -> dict[str, Any]:
        spec = self.spec
        return {
            "base": {"name": spec.name, "model": spec.model, "digest": self.base.digest},
            "data": {
                "digest": self.material.digest,
                "train": len(parts.train),
                "held_out": len(parts.held),
                "passages": len(self.material.passages),
            },
            "settings": self.settings.model_dump(mode="json"),
            "threads": torch.get_num_threads(),
            "seconds": round(state.seconds, 1),
            "steps": state.step,
            "best_step": state.best_step,
            "losses": [round(loss, 4) for loss in state.losses],
            "evaluations": [round(mean, 4) for mean in state.history.mean(axis=1).tolist()],
            "ndcg@10": asdict(found),
        }


@contextmanager
def _fixed(settings: Settings) -> Iterator[None]:
    """Compute alike every time, and leave the process's own random numbers alone."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(settings.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
