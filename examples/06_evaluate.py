"""Compare two routers on held-out outcomes, and write the report that people read."""

from pathlib import Path
from tempfile import TemporaryDirectory

from composer.evaluation import evaluate
from composer.publishing import publish
from routers.auto import AutoRouter
from routers.linear import LinearRouter
from routers.splits import split
from routers.testing import HashingEncoder, synthetic_outcomes


def main() -> None:
    """Fit on one part of made-up outcomes, judge on the other."""
    parts = split(synthetic_outcomes(n=400), test=0.3)
    encoder = HashingEncoder()
    routers = {
        "auto": AutoRouter(encoder=encoder).fit(parts.train),
        "linear": LinearRouter(encoder=encoder).fit(parts.train),
    }
    report = evaluate(routers, parts.train, parts.test, resamples=2000)
    for found in report.comparisons:
        low, high = found.interval.low, found.interval.high
        difference = f"{found.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(f"auto - {found.baseline}: {difference} {found.verdict}")
    with TemporaryDirectory() as folder:
        written = publish(report, Path(folder))
        print("wrote", ", ".join(path.name for path in written if path.suffix == ".html"))


if __name__ == "__main__":
    main()
