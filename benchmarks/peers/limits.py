"""Time and memory of our routers at 10,000 queries x 30 experts, each in a process of its own."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from experts_registry.plugins import plugin_names
from peers.known import KnownEncoder
from peers.method import Queries
from peers.ours import CONSTANTS, Ours, fit_cost, median_ms, our_routers
from routers.data import RoutingDataset

__all__ = ["made_up", "run"]

EXPERTS, DIMENSIONS, CATEGORIES = 30, 384, 14
SIZES = (5_000, 10_000, 20_000)
SIZE = 10_000
_WORDS = ("prove", "integral", "contract", "protein", "loop", "market", "poem", "river")


def made_up(n: int, seed: int = 0) -> tuple[RoutingDataset, KnownEncoder]:
    """Make n queries in clusters, and experts that are better in some of them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CATEGORIES, DIMENSIONS))
    category = rng.integers(CATEGORIES, size=n)
    x = centres[category] + 1.5 * rng.normal(size=(n, DIMENSIONS))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    skill = 0.5 + 0.2 * rng.normal(size=(CATEGORIES, EXPERTS)).clip(-2, 2)
    words = rng.choice(_WORDS, size=(n, 20))
    texts = tuple(f"{i} {' '.join(row)}" for i, row in enumerate(words.tolist()))
    data = RoutingDataset(
        queries=texts,
        experts=tuple(f"expert-{i}" for i in range(EXPERTS)),
        quality=(rng.random((n, EXPERTS)) < skill[category]).astype(float),
        cost=np.geomspace(1e-5, 1e-2, EXPERTS) * rng.lognormal(0, 0.5, size=(n, EXPERTS)),
        category=tuple(f"category-{c}" for c in category),
    )
    return data, KnownEncoder(dict(zip(texts, x, strict=True)))


def run(names: Sequence[str] = (), sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Print one line per router; memory also at half and at twice the size."""
    print(f"{SIZE:,} queries x {EXPERTS} experts, {DIMENSIONS} dimensions")
    print(f"{'router':12}{'fit s':>8}"
          + "".join(f"{f'MiB {n // 1000}k':>9}" for n in sizes)
          + f"{'choose ms':>11}{'route ms':>10}{'1,000 in ms':>13}")  # fmt: skip
    found: dict[str, Any] = {}
    for name in names or plugin_names("routers"):
        if name in CONSTANTS:
            continue
        per_size = {n: _alone(name, n, time=n == SIZE) for n in sizes}
        if not all(per_size.values()):
            print(f"{name:12} cannot be imported")
            continue
        at = per_size[SIZE]
        found[name] = at | {"fit_mib_at": {n: f["fit_mib"] for n, f in per_size.items()}}
        memory = "".join(f"{f['fit_mib'] or float('nan'):9.0f}" for f in per_size.values())
        print(f"{name:12}{at['fit_s']:8.1f}{memory}{at['ms']:11.3f}{at['route_ms']:10.3f}"
              f"{at['ms_1000']:13.1f}", flush=True)  # fmt: skip
    return found


def _alone(name: str, n: int, *, time: bool) -> dict[str, Any]:
    """Measure in a fresh process, whose memory nobody else has touched."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, name, n, time).result()


def measure(name: str, n: int, time: bool) -> dict[str, Any]:
    """Fit one router on n queries; nothing where it cannot be imported."""
    small, encoder = made_up(300)
    if (method := _ours(name, encoder)) is None:
        return {}
    method.router.fit(small)  # imports what it needs
    data, encoder = made_up(n)
    method = _ours(name, encoder)
    assert method is not None
    queries = Queries(texts=data.queries, x=np.empty((n, 0)), category=data.category)
    seconds, memory = fit_cost(lambda: method.fit(data, queries))
    found: dict[str, Any] = {"fit_s": seconds, "fit_mib": memory}
    if time:
        one = iter([queries.take([i]) for i in range(300)])
        text = iter(data.queries[:300])
        thousand = queries.take(np.arange(1000) % n)
        found["ms"] = median_ms(lambda: method.choose(next(one)), times=200)
        found["route_ms"] = median_ms(lambda: method.router.route(next(text)), times=200)
        found["ms_1000"] = median_ms(lambda: method.choose(thousand), times=5, warm=1)
    return found


def _ours(name: str, encoder: KnownEncoder) -> Ours | None:
    found = our_routers(encoder, say=lambda _: None)
    return next((method for method in found if method.name == name), None)
