"""The simplest expert retrievers: a linear map of the query vector, learned in seconds.

    q' = q + q W,   normalised;   W minimises the multiple-negatives ranking loss plus l |W|^2

Passages stay as the base embeds them, so that one index serves all, as with adapters on the query
side. They stand in for adapters where there are none yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from experts_registry.types import Embedder, FloatArray, Role

__all__ = ["LinearExpert", "train_map"]

TEMPERATURE, PENALTY, RATE, STEPS = 0.05, 1e-3, 1e-3, 10
BATCH, NEGATIVES = 256, 1024


@dataclass(frozen=True, eq=False)
class LinearExpert:
    """A base encoder whose query vectors are mapped."""

    base: Embedder
    weight: FloatArray
    name: str

    @property
    def digest(self) -> str:
        """That of the base with the name of the map."""
        return f"{self.base.digest}:{self.name}:{float(np.abs(self.weight).sum()):.6f}"

    @property
    def passage_digest(self) -> str:
        """That of the base."""
        return self.base.digest

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Embed as the base does; queries are mapped."""
        x = self.base.embed(texts, role=role)
        if role == "query":
            x = x + x @ self.weight
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(x, dtype=np.float32)

    def close(self) -> None:
        """The base is not its own."""


def train_map(
    queries: FloatArray, relevant: Sequence[Mapping[int, int]], passages: FloatArray, seed: int = 0
) -> FloatArray:
    """Return W (d, d), learned from queries (n, d) and the rows of their relevant passages."""
    draw, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    q, p = torch.from_numpy(queries), torch.from_numpy(passages)
    weight = torch.zeros(q.shape[1], q.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=RATE)
    for _ in range(STEPS):
        rows = torch.randperm(len(q), generator=draw)[:BATCH]
        positive = torch.tensor([int(rng.choice([*relevant[i]])) for i in rows.tolist()])
        columns = torch.cat([positive, torch.randint(len(p), (NEGATIVES,), generator=draw)])
        mapped = torch.nn.functional.normalize(q[rows] + q[rows] @ weight, dim=1)
        logits = mapped @ p[columns].T / TEMPERATURE
        same = positive[:, None] == columns[None, :]
        same[torch.arange(len(rows)), torch.arange(len(rows))] = False
        logits = logits.masked_fill(same, -1e4)
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(rows)))
        loss = loss + PENALTY * (weight**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weight.detach().numpy()
