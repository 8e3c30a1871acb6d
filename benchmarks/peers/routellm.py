"""RouteLLM's matrix factorisation and similarity-weighted Elo, on outcome tables.

Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data",
https://arxiv.org/abs/2406.18665. Its package (0.2.0) asks OpenAI for embeddings and the hub for
battles, so both are re-implemented with its hyperparameters on the shared embeddings. It routes
between two models by a threshold on the win rate; with more, each expert's score less a weight
times its cost decides, which for two is that threshold.

The package groups arena models into ten tiers because few of them ever met. In a full table all
meet on every query, so each expert is rated by itself.
"""

from dataclasses import dataclass

import numpy as np

from experts_registry.types import FloatArray
from peers.method import IntArray, Queries, Scored
from routers.data import RoutingDataset

__all__ = ["MatrixFactorisation", "SimilarityWeighted", "battles"]

_NEWTON_STEPS = 12
_RIDGE = 1e-3  # the package has none, and diverges where an expert never loses
_PATIENCE = 5
_HELD = 0.05


def battles(quality: FloatArray, most: int, rng: np.random.Generator) -> IntArray:
    """Return rows (query, winner, loser), at most so many per query; ties are dropped."""
    row, winner, loser = np.nonzero(quality[:, :, None] > quality[:, None, :])
    order = np.lexsort((rng.random(len(row)), row))
    row, winner, loser = row[order], winner[order], loser[order]
    start = np.searchsorted(row, np.arange(len(quality)))
    kept = np.arange(len(row)) - start[row] < most
    return np.stack([row, winner, loser], axis=1)[kept]


@dataclass(kw_only=True)
class MatrixFactorisation(Scored):
    """P(a beats b) = sigmoid(d_a - d_b), d_m(x) = v . (P_m / |P_m| * W x); Adam on battles.

    Trained for at most 100 epochs, until the loss on the battles of 5 % held-out queries has not
    fallen for five; the best epoch is kept. Battles count by how much they were won.
    """

    name = "RouteLLM matrix factorisation"
    rank: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 1e-5
    batch: int = 64
    epochs: int = 100
    noise: float = 0.1
    battles_per_query: int = 10
    seed: int = 42

    def learn(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn what `scores` needs."""
        rng = np.random.default_rng(self.seed)
        fights = rng.permutation(battles(data.quality, self.battles_per_query, rng))
        x = np.asarray(queries.x, dtype=np.float32)
        is_held = (rng.random(len(data)) < _HELD)[fights[:, 0]]
        held, kept = fights[is_held], fights[~is_held]
        weights = self._start(len(data.experts), x.shape[1], rng)
        optimizer = Adam(weights, self.learning_rate, self.weight_decay)
        best, since, found = np.inf, 0, [w.copy() for w in weights]
        for _ in range(self.epochs):
            for part in np.array_split(rng.permutation(kept), max(1, len(kept) // self.batch)):
                z = x[part[:, 0]]
                z += self.noise * rng.standard_normal(z.shape, dtype=np.float32)
                optimizer.step(loss_and_slopes(weights, z, part, data.quality)[1])
            now = loss_and_slopes(weights, x[held[:, 0]], held, data.quality)[0]
            since = since + 1 if now >= best else 0
            if now < best:
                best, found = now, [w.copy() for w in weights]
            if since >= _PATIENCE:
                break
        expert, text, head = (w.astype(np.float64) for w in found)
        unit = expert / np.linalg.norm(expert, axis=1, keepdims=True)
        self._map = (unit * head) @ text  # (m, d): all of it after the embedding is linear

    def _start(self, m: int, d: int, rng: np.random.Generator) -> list[FloatArray]:
        """Return P (m, rank), W (rank, d) and v (rank,) as torch initialises such layers."""
        return [
            rng.standard_normal((m, self.rank), dtype=np.float32),
            rng.uniform(-1, 1, (self.rank, d)).astype(np.float32) / np.sqrt(np.float32(d)),
            rng.uniform(-1, 1, self.rank).astype(np.float32) / np.sqrt(np.float32(self.rank)),
        ]

    def scores(self, queries: Queries) -> FloatArray:
        """Return a score per expert (n, m)."""
        scores: FloatArray = queries.x @ self._map.T
        return scores


def loss_and_slopes(
    weights: list[FloatArray], z: FloatArray, fights: IntArray, quality: FloatArray
) -> tuple[float, list[FloatArray]]:
    """Return the mean loss of battles whose queries are embedded as z (b, d), and its slopes."""
    expert, text, head = weights
    if not len(fights):
        return 0.0, [np.zeros_like(w) for w in weights]
    query, winner, loser = fights.T
    gap = (quality[query, winner] - quality[query, loser]).astype(np.float32)
    sign = np.zeros((len(fights), len(expert)), dtype=z.dtype)  # (b, m): +1 winner, -1 loser
    rows = np.arange(len(fights))
    sign[rows, winner], sign[rows, loser] = 1, -1
    norm = np.linalg.norm(expert, axis=1, keepdims=True)
    unit = expert / norm
    apart, read = sign @ unit, z @ text.T  # (b, rank)
    margin = (apart * read) @ head
    loss = float((gap * np.logaddexp(0, -margin)).mean())
    pull = -gap / (1 + np.exp(margin)) / np.float32(len(fights))
    inner = pull[:, None] * head
    unit_slope = sign.T @ (inner * read)
    across = unit_slope - unit * (unit * unit_slope).sum(axis=1, keepdims=True)
    return loss, [across / norm, (inner * apart).T @ z, (apart * read).T @ pull]


class Adam:
    """Kingma and Ba, https://arxiv.org/abs/1412.6980, weight decay added to the slopes."""

    def __init__(self, weights: list[FloatArray], rate: float, decay: float) -> None:
        self._weights, self._rate, self._decay, self._steps = weights, rate, decay, 0
        self._mean = [np.zeros_like(w) for w in weights]
        self._square = [np.zeros_like(w) for w in weights]

    def step(self, slopes: list[FloatArray]) -> None:
        """Move the weights, in place."""
        self._steps += 1
        rate = self._rate / (1 - 0.9**self._steps)
        scale = np.float32((1 - 0.999**self._steps) ** -0.5)
        for w, g, mean, square in zip(self._weights, slopes, self._mean, self._square, strict=True):
            g = g + self._decay * w
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            w -= rate * mean / (np.sqrt(square) * scale + 1e-8)


@dataclass(kw_only=True)
class SimilarityWeighted(Scored):
    """Bradley-Terry ratings per query, training battles weighted 10 * 10^(cos / max cos).

    All pairs of experts fight on every training query, a tie is half a win for each; ratings of
    many queries are solved together by Newton steps on the sums of weighted wins.
    """

    name = "RouteLLM similarity-weighted"

    def learn(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn what `scores` needs."""
        above = data.quality[:, :, None] > data.quality[:, None, :]
        tied = data.quality[:, :, None] == data.quality[:, None, :]
        wins = (above + 0.5 * tied).astype(np.float32)  # (n, m, m)
        self._x = np.asarray(queries.x, dtype=np.float32)
        self._wins = wins.reshape(len(data), -1)
        self._experts = len(data.experts)

    def scores(self, queries: Queries) -> FloatArray:
        """Return ratings in natural-logarithm units, (n, m)."""
        out = np.empty((len(queries), self._experts))
        for start in range(0, len(queries), 500):
            cosine = queries.x[start : start + 500].astype(np.float32) @ self._x.T
            weight = 10 * 10 ** (cosine / cosine.max(axis=1, keepdims=True))
            wins = (weight @ self._wins).reshape(-1, self._experts, self._experts)
            out[start : start + 500] = ratings(wins.astype(np.float64))
        return out


def ratings(wins: FloatArray) -> FloatArray:
    """Return the most likely Bradley-Terry ratings (n, m), mean 0, from wins (n, m, m)."""
    n, m, _ = wins.shape
    wins = wins * (1 - np.eye(m))
    met = wins + wins.transpose(0, 2, 1)
    rating = np.zeros((n, m))
    for _ in range(_NEWTON_STEPS):
        odds = 1 / (1 + np.exp(rating[:, None, :] - rating[:, :, None]))  # P(row beats column)
        gradient = (wins - met * odds).sum(axis=2) - _RIDGE * rating
        curve = met * odds * (1 - odds)
        hessian = -curve + np.eye(m) * (curve.sum(axis=2)[:, :, None] + _RIDGE)
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        rating += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-7:
            break
    return rating
