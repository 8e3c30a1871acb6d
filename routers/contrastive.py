"""Train prototypes by the outcomes and by the routing contrastive loss.

Wei et al., "Routing Matters in MoE: Scaling Diffusion Transformers with Explicit Routing Guidance"
(ProMoE), https://arxiv.org/abs/2510.24711. With m_j the mean of the queries nearest to prototype
mu_j, over the prototypes that have any,

    L_rcl = cross-entropy over rows of [cos(mu_k, m_j) / T], the diagonal as target

It keeps prototypes apart and where queries are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from experts_registry.types import FloatArray

__all__ = ["contrastive_loss", "train_prototypes"]

TEMPERATURE = 0.07
_LITTLE = 1e-12


def train_prototypes(
    z: FloatArray,
    residual: FloatArray,
    start: FloatArray,
    *,
    steps: Sequence[int] = (100,),
    contrast: float = 1.0,
    learning_rate: float = 0.01,
) -> list[FloatArray]:
    """Return unit prototypes (m, p, d) after each of these numbers of steps of Adam, rising.

    The loss of outcomes is the share of the residuals' variance that a slope per expert on the
    cosine to its nearest prototype leaves.

    Args:
        z: (n, d) unit rows.
        residual: (n, m) what each expert did better than expected; 0 where unknown.
        start: (m, p, d).
        steps: when to look.
        contrast: weight of the contrastive loss.
        learning_rate: of Adam.
    """
    # In float64 the order of the experts does not show: Adam magnifies rounding errors.
    x, r = (torch.tensor(array, dtype=torch.float64) for array in (z, residual))
    mu = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        first = _nearest(x @ normalize(mu, dim=-1).flatten(0, 1).T, mu)
        slope = (first * r).sum(dim=0) / first.square().sum(dim=0).clamp(min=1e-9)
    slope.requires_grad_()
    optimiser = torch.optim.Adam([mu, slope], lr=learning_rate)
    scale, found = r.square().mean().clamp(min=_LITTLE), []
    for step in range(steps[-1] + 1):
        if step in steps:
            found.append(normalize(mu.detach(), dim=-1).numpy().copy())
        if step == steps[-1]:
            break
        rows = normalize(mu, dim=-1).flatten(0, 1)
        cosine = x @ rows.T
        loss = (r - slope * _nearest(cosine, mu)).square().mean() / scale
        if contrast:
            loss = loss + contrast * contrastive_loss(rows, x, cosine)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return found


def contrastive_loss(
    prototypes: Tensor, x: Tensor, cosine: Tensor, *, temperature: float = TEMPERATURE
) -> Tensor:
    """Return L_rcl of unit prototypes (p, d) over unit rows x (n, d); 0 for fewer than two used.

    Whose a row is goes by ``cosine`` (n, p), that of both; one as near to several counts in part
    for each.
    """
    with torch.no_grad():
        own = (cosine >= cosine.amax(dim=1, keepdim=True) - 1e-9).to(x.dtype)
        own /= own.sum(dim=1, keepdim=True)
        used = torch.nonzero(own.sum(dim=0) > 0)[:, 0]
        means = normalize(own.T @ x, dim=1)[used]
    if len(used) < 2:
        return 0 * prototypes.sum()
    return cross_entropy(prototypes[used] @ means.T / temperature, torch.arange(len(used)))


def _nearest(cosine: Tensor, mu: Tensor) -> Tensor:
    """Return the cosine to each expert's nearest prototype, less its mean (n, m)."""
    nearest = cosine.reshape(len(cosine), *mu.shape[:2]).amax(dim=2)
    return nearest - nearest.mean(dim=0)
