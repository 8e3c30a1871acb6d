"""The state of a training after an evaluation, as one safetensors file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from composer.retriever_training.workshop import Workshop
from experts_registry.types import FloatArray

__all__ = ["Checkpoint"]

_NAME = "checkpoint.safetensors"
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is.

    Args:
        step: batches that were learned from.
        learned: the adapter.
        optimizer: moments of AdamW, by parameter and name.
        best: the adapter at the best evaluation.
        best_step: when that was.
        history: (evaluations, n) quality on the held-out queries.
        losses: mean over the batches before each evaluation but the first.
        seconds: of work so far.
    """

    step: int
    learned: Tensors
    optimizer: Tensors
    best: Tensors
    best_step: int
    history: FloatArray
    losses: tuple[float, ...]
    seconds: float

    def save(self, workshop: Workshop, key: str) -> None:
        """Write it; ``key`` identifies what it is the training of."""
        tensors = {
            f"{part}/{name}": value
            for part in ("learned", "optimizer", "best")
            for name, value in getattr(self, part).items()
        }
        tensors["history"] = torch.from_numpy(self.history)
        facts = {name: getattr(self, name) for name in _FACTS}
        # In the same file: it cannot be half of one evaluation and half of another.
        about = {"training": json.dumps({**facts, "key": key})}
        # The best adapter may be the present one, and the format takes no tensor twice.
        content = {name: value.contiguous().clone() for name, value in tensors.items()}
        workshop.write(_NAME, save(content, metadata=about))

    @classmethod
    def load(cls, workshop: Workshop, key: str) -> "Checkpoint | None":
        """Return what was kept of this training, if anything was."""
        if (content := workshop.read(_NAME)) is None:
            return None
        try:
            facts, tensors = _metadata(content), load(content)
        except (SafetensorError, ValueError, KeyError):
            return None
        if facts.get("key") != key:
            return None
        parts: dict[str, dict[str, torch.Tensor]] = {"learned": {}, "optimizer": {}, "best": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            if rest:
                parts[part][rest] = value
        return cls(
            step=facts["step"],
            learned=parts["learned"],
            optimizer=parts["optimizer"],
            best=parts["best"],
            best_step=facts["best_step"],
            history=tensors["history"].numpy(),
            losses=tuple(facts["losses"]),
            seconds=facts["seconds"],
        )

    def evaluated(self, quality: FloatArray, loss: float, learned: Tensors) -> "Checkpoint":
        """Return the state after one more evaluation (n,); an equal one later is not better."""
        is_better = quality.mean() > self.history.mean(axis=1).max()
        return replace(
            self,
            learned=learned,
            best=learned if is_better else self.best,
            best_step=self.step if is_better else self.best_step,
            history=np.vstack([self.history, quality]),
            losses=(*self.losses, loss),
        )


_FACTS = ("step", "best_step", "losses", "seconds")


def _metadata(content: bytes) -> dict[str, Any]:
    """Read the header: its length in eight bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["training"])
    return facts
