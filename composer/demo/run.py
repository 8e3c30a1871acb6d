"""Measure three real models, learn whom to ask, ask fresh questions on Ray workers."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.resources import as_file, files
from multiprocessing import get_context
from pathlib import Path

import yaml

from composer.measuring import measure
from composer.plots import draw_report
from composer.report import Report
from composer.routing import Routing
from composer.sdk import Composer
from composer.trace import Answer
from composer.training import train
from experts_registry.errors import DataError, ModelSourceError
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from experts_registry.sources import locate
from routers.building import build_router
from routers.data import RoutingDataset

__all__ = ["FRESH", "Demo", "ask_fresh", "learn", "prepare", "set_up"]

logger = logging.getLogger(__name__)

# Asked live at the end; none of them is in the query set.
FRESH = (
    "Write a Python function only_positive(numbers) that keeps the numbers greater than zero.",
    "Wie heißt die Hauptstadt von Italien?",
    "Why does the Moon change its shape during the month?",
)
HELD_OUT = 0.3  # about eight queries of each category


@dataclass(frozen=True)
class Demo:
    """Where the demo's files lie."""

    folder: Path
    registry: Registry

    @property
    def outcomes(self) -> Path:
        """What each expert made of each query."""
        return self.folder / "outcomes.parquet"

    @property
    def queries(self) -> Path:
        """The graded queries."""
        return self.folder / "queries.jsonl"

    @property
    def router(self) -> Path:
        """The trained router."""
        return self.folder / "routers" / "auto"


def set_up(folder: Path, *, hub: bool = False, recollect: bool = False) -> Demo:
    """Copy the demo's registry, queries and recorded outcomes into a folder.

    Args:
        folder: made if it is missing; its registry and queries are replaced.
        hub: name the upstream repositories instead of the packaged models.
        recollect: leave the recorded outcomes out, so that they are measured anew.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (
            "experts.yaml",
            "queries.jsonl",
            *(() if recollect else ("outcomes.parquet",)),
        ):
            with as_file(files("composer") / "demo" / name) as source:
                shutil.copyfile(source, folder / name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}; use --out") from error
    if hub:
        _take_from_hub(folder / "experts.yaml")
    return Demo(folder, Registry.load(folder / "experts.yaml"))


def prepare(demo: Demo, on_ready: Callable[[str, float], None]) -> None:
    """Find, verify and convert every model once, two at a time; later runs find them ready.

    Raises:
        ModelSourceError: a model is missing or is not the one that the registry names.
    """
    # Processes, because unpacking computes; spawned, because torch does not survive a fork.
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        # The largest first: the others fill the second process meanwhile.
        specs = sorted(demo.registry.experts.values(), key=lambda s: -(s.active_params or 0))
        jobs = {pool.submit(_locate, spec): spec.name for spec in specs}
        try:
            for job in as_completed(jobs):
                on_ready(jobs[job], job.result())
        except BrokenProcessPool as error:
            raise ModelSourceError(
                "models: a process that converted one was killed; converting takes 4 GB of memory"
            ) from error


async def collect(demo: Demo, *, quiet: bool) -> None:
    """Ask every expert every query on Ray workers; a killed run goes on where it stopped."""
    await measure(demo.registry.path, demo.queries, demo.outcomes, quiet=quiet)


def learn(demo: Demo) -> Report:
    """Train the default router, judge it on held-out queries, draw the pictures."""
    data = RoutingDataset.load(demo.outcomes)
    routing = Routing(demo.registry)
    try:
        router = build_router("auto", routing.encoder(), {})
        trained = train(router, data, demo.router, test=HELD_OUT)
    finally:
        routing.close()
    draw_report(trained.report, demo.folder)
    return trained.report


def ask_fresh(
    demo: Demo, *, on_ready: Callable[[float], None], on_answer: Callable[[str, Answer], None]
) -> None:
    """Start the experts on Ray workers and ask each fresh question."""
    began = time.perf_counter()
    with Composer.load(demo.registry.path, workers=True) as composer:

        async def load() -> None:
            await asyncio.gather(*map(composer.dispatcher.load, demo.registry.llms))

        composer.run(load())
        on_ready(time.perf_counter() - began)
        for question in FRESH:
            on_answer(question, composer.query(question, max_tokens=96))


def _locate(spec: ExpertSpec) -> float:
    # In a process of its own: the bars of two conversions at once cannot be read.
    os.environ["TQDM_DISABLE"] = "1"
    began = time.perf_counter()
    locate(spec)
    return time.perf_counter() - began


def _take_from_hub(path: Path) -> None:
    """Replace every packaged model by the repository that it was made from."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for expert in document["experts"]:
        expert["model"] = expert["tags"]["upstream"]
        expert.pop("sha256", None)
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
