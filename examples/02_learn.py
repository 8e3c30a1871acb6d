"""Measure experts on graded queries, train a router, and see whom it would ask and why."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from composer import Composer
from composer.measuring import measure
from composer.routing import Routing
from composer.starter import write_starter
from composer.training import train
from experts_registry import Registry
from routers import RoutingDataset
from routers.building import build_router


def main() -> None:
    """Do in Python what ``init``, ``collect``, ``train`` and ``route`` do."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        experts, queries, _ = write_starter(folder)
        outcomes = folder / "outcomes.parquet"
        summary = asyncio.run(measure(experts, queries, outcomes, workers=False, quiet=True))
        print(summary)

        data = RoutingDataset.load(outcomes)
        encoder = Routing(Registry.load(experts)).encoder()
        router = build_router("auto", encoder, {})
        trained = train(router, data, folder / "routers" / "auto")
        for comparison in trained.report.comparisons:
            print(f"router - {comparison.baseline}: {comparison.difference:+.2f}")

        with Composer.load(experts) as composer:
            print(composer.query("What is 20 plus 22?").text)
            print(composer.explain("Say the word lighthouse."))


if __name__ == "__main__":
    main()
