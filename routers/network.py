"""Train the network of `routers.mlp`: a trunk for all experts, a sigmoid head for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from experts_registry.types import FloatArray

__all__ = ["Recipe", "Table", "table", "train"]

_BATCH = 256
_PATIENCE = 8  # epochs without a better held-out score
_SOFT = 0.03  # quality by which an expert must lead to be chosen e times as often


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; see `routers.mlp.MLPRouter`."""

    hidden: int
    dropout: float
    learning_rate: float
    weight_decay: float
    epochs: int


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs (n, d), quality (n, m) with zeros where missing, and which cells are known."""

    z: Tensor
    y: Tensor
    known: Tensor

    def rows(self, index: Tensor) -> "Table":
        """Return some rows."""
        return Table(self.z[index], self.y[index], self.known[index])


def table(z: FloatArray, quality: FloatArray) -> Table:
    """Return the tensors of z (n, d) and quality (n, m), NaN where missing."""
    arrays = (z, np.nan_to_num(quality), ~np.isnan(quality))
    return Table(*(torch.as_tensor(np.asarray(a, dtype=np.float32)) for a in arrays))


def train(
    train: Table, held: Table, level: FloatArray, recipe: Recipe, seed: int
) -> dict[str, FloatArray]:
    """Return ``w1``, ``b1``, ``w2``, ``b2``, ``w3``, ``b3`` of the network at its best epoch.

    Before the first epoch it says ``level`` (m,) of every query, and does so for good where either
    table is empty. torch's own random numbers stay as they were.
    """
    generator = torch.Generator().manual_seed(seed)
    network = _network(train.z.shape[1], recipe.hidden, level, generator)
    best, since = _copy(network), 0
    if not len(train.z) or not len(held.z):
        return best
    optimizer = _optimizer(network, recipe)
    top = _reached(network, held)
    for _ in range(recipe.epochs):
        _epoch(network, train, optimizer, recipe.dropout, generator)
        if (score := _reached(network, held)) > top:
            top, best, since = score, _copy(network), 0
        elif (since := since + 1) >= _PATIENCE:
            break
    return best


def _network(
    d: int, hidden: int, level: FloatArray, generator: torch.Generator
) -> dict[str, Tensor]:
    def weights(inputs: int) -> Tensor:
        drawn: Tensor = torch.randn(inputs, hidden, generator=generator)
        return drawn.mul_((2 / inputs) ** 0.5).requires_grad_()

    logits = torch.as_tensor(np.log(level / (1 - level)), dtype=torch.float32)
    return {
        "w1": weights(d),
        "b1": torch.zeros(hidden, requires_grad=True),
        "w2": weights(hidden),
        "b2": torch.zeros(hidden, requires_grad=True),
        "w3": torch.zeros(hidden, len(level), requires_grad=True),
        "b3": logits.requires_grad_(),
    }


def _copy(network: Mapping[str, Tensor]) -> dict[str, FloatArray]:
    return {name: p.detach().numpy().copy() for name, p in network.items()}


def _optimizer(network: Mapping[str, Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, 2019); biases, which hold the means, do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in network.items() if n[0] == "w"]},
        {"params": [p for n, p in network.items() if n[0] == "b"], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _epoch(
    network: Mapping[str, Tensor],
    train: Table,
    optimizer: torch.optim.Optimizer,
    dropout: float,
    generator: torch.Generator,
) -> None:
    order = torch.randperm(len(train.z), generator=generator)
    for start in range(0, len(order), _BATCH):
        batch = train.rows(order[start : start + _BATCH])
        logits = _forward(network, batch.z, dropout, generator)
        loss = binary_cross_entropy_with_logits(logits, batch.y, batch.known, reduction="sum")
        optimizer.zero_grad()
        torch.autograd.backward(loss / batch.known.sum())
        optimizer.step()


def _forward(
    network: Mapping[str, Tensor],
    z: Tensor,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    for layer in ("1", "2"):
        z = torch.relu(z @ network["w" + layer] + network["b" + layer])
        if dropout:
            z = z * (torch.rand(z.shape, generator=generator) >= dropout) / (1 - dropout)
    return z @ network["w3"] + network["b3"]


def _reached(network: Mapping[str, Tensor], held: Table) -> float:
    """Return the quality that a soft choice among the known experts reaches, made smoother.

    What is added is the share of the double-centred variance that is explained: the loss on the
    differences between experts, for that on what they share can grow while these are learned.
    """
    with torch.no_grad():
        quality = torch.sigmoid(_forward(network, held.z))
        lead = (quality / _SOFT).masked_fill(held.known == 0, -torch.inf)
        reached = (torch.softmax(lead, dim=1) * held.y).sum(dim=1).mean()
        y, p = (_differences(values, held.known) for values in (held.y, quality))
        left, total = ((y - p) ** 2).sum(), (y**2).sum()
        return float(reached - left / total.clamp(min=1e-9))


def _differences(values: Tensor, known: Tensor) -> Tensor:
    """Return the known cells less their row's mean (n, m), zeros elsewhere."""
    mean = (values * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True)
    return (values - mean) * known
