"""Our routers as methods of the benchmark, and how time and memory are taken."""

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experts_registry.errors import PluginError
from experts_registry.plugins import load_plugin, plugin_names
from experts_registry.types import Embedder, FloatArray
from peers.method import SETTINGS, IntArray, Method, Queries, cheapest_best
from routers.base import Router
from routers.data import RoutingDataset
from routers.decision import Prediction

__all__ = ["Ours", "fit_cost", "median_ms", "our_routers"]

CONSTANTS = ("best", "random")  # stand among the references instead
COST_WEIGHTS = (0.0, *np.geomspace(1e-3, 30, SETTINGS - 1).tolist())
_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(kw_only=True)
class Ours(Method):
    """A registered router, with its defaults; its knob is ``cost_weight``."""

    name: str
    router: Router

    def fit(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn from outcomes."""
        self.router.fit(data)

    def choose(self, queries: Queries) -> IntArray:
        """Choose where cost has no weight, (n,)."""
        x = self.router.embed(queries.texts)
        return _best(self.router.predict_embedded(x, cost_weight=0.0))

    def sweep(self, queries: Queries, *, experts: Sequence[str] | None = None) -> IntArray:
        """Choose at each cost weight, (settings, n)."""
        return self.swept(self.router.embed(queries.texts), experts=experts)

    def swept(self, x: FloatArray, *, experts: Sequence[str] | None = None) -> IntArray:
        """Predict twice: utility is linear in the weight by its definition."""
        free, tilted = (
            self.router.predict_embedded(x, experts=experts, cost_weight=w) for w in (0.0, 1.0)
        )
        slope = tilted.utility - free.utility
        return np.stack([_best(free, w * slope) for w in COST_WEIGHTS])


def _best(found: Prediction, tilt: FloatArray | float = 0.0) -> IntArray:
    """Choose as `Router.route` does, of equal utilities the cheapest, (n,)."""
    cost = np.where(np.isnan(found.cost), np.finfo(float).max, found.cost.astype(float))
    return cheapest_best(found.utility + tilt, cost)


def our_routers(
    encoder: Embedder, names: Sequence[str] = (), *, say: Callable[[str], object] = print
) -> Iterator[Ours]:
    """Yield every registered router, or those named, that can be imported; say which cannot."""
    for name in names or plugin_names("routers"):
        if name in CONSTANTS:
            continue
        try:
            router = load_plugin("routers", name)(encoder=encoder)
        except PluginError as error:
            say(f"left out: {error}")
            continue
        yield Ours(name=name, router=router)


def median_ms(call: Callable[[], object], *, times: int, warm: int = 3) -> float:
    """Return the median milliseconds of a call."""
    taken = []
    for turn in range(times + warm):
        began = time.perf_counter()
        call()
        if turn >= warm:
            taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def fit_cost(fit: Callable[[], object]) -> tuple[float, float | None]:
    """Return the seconds of a fit, and the MiB by which the process's peak grew (Linux)."""
    before = _reset_peak()
    began = time.perf_counter()
    fit()
    seconds = time.perf_counter() - began
    after = _status("VmHWM")
    return seconds, None if before is None or after is None else max(0.0, after - before)


def _reset_peak() -> float | None:
    """Start a new peak at what is resident now, and return that in MiB."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or what was freed before would hide growth
        _REFERENCES.write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _status(key: str) -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), None)
