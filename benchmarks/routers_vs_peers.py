"""Train our routers and other people's algorithms on the same splits, and compare them.

    python benchmarks/routers_vs_peers.py [FOLDER] [--tables ...] [--seeds 5] [--json FILE]
    python benchmarks/routers_vs_peers.py [FOLDER] --encoders [MODEL ...]
    python benchmarks/routers_vs_peers.py --limits

FOLDER holds the outcome tables; by default ``shared/data`` beside this repository, or what
EXPERT_COMPOSER_SHARED says. benchmarks/README.md explains what is printed and how it is computed.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from category_router import CachedEncoder
from peers import encoders, limits
from peers.contest import RESAMPLES, Contest, together
from peers.known import KnownEncoder
from peers.llmrouter import is_installed
from peers.ours import our_routers
from peers.tables import OUTPUT_TOKENS, TABLES, load_table

from experts_registry.types import Embedder

MANY = ("routing_mmlupro", "routing_zeroeval")  # taken together at the end
PACKAGE = "its own package on each table's own split, the same estimators on the others"
ESTIMATORS = "the same estimators; its package is not installed"
HEAD = (
    f"{'method':30}{'AIQ':>7}  {'95 % interval':18}{'own':>7}{'ratio':>7}{'ours less it':>13}  "
    f"{'95 % interval':20}{'verdict':17}{'q free':>7}{'ms/1':>9}{'ms/1000':>9}{'x ours':>8}"
    f"{'fit s':>8}{'MiB':>7}"
)


def compare(options: argparse.Namespace, encoder: Embedder) -> dict[str, Any]:
    """Run every table."""
    real = is_installed()
    names = [method.name for method in our_routers(encoder, options.routers)]
    names.sort(key=lambda name: name != options.ours)  # what is compared with comes first
    print(f"ours: {names[0]!r}; LLMRouter: {PACKAGE if real else ESTIMATORS}")
    print(f"cost where a table has none: list price x (characters / 4 + {OUTPUT_TOKENS} tokens)")
    contests: list[Contest] = []
    found: dict[str, Any] = {}
    for name in options.tables:
        data = load_table(options.folder / name)
        known = KnownEncoder.of(data, encoder)
        contest = Contest(name=name, data=data, encoder=known, routers=names, real=real)
        contest.run(options.seeds, jobs=options.jobs, say=lambda text: print(text, flush=True))
        contests.append(contest)
        found[name] = contest.result()
        show(contest, found[name])
    if len(many := [contest for contest in contests if contest.name in MANY]) > 1:
        found["together"] = together(many)
        print(f"\n{' and '.join(c.name for c in many)} taken together: {names[0]} less each")
        for name, row in found["together"].items():
            print(f"{name:30}{_gap(row)}")
    return {"ours": names[0], "resamples": RESAMPLES, "tables": found}


def show(contest: Contest, rows: dict[str, dict[str, Any]]) -> None:
    """Print one table, best first."""
    data = contest.data
    splits = len(contest.areas[contest.ours])
    print(f"\n{contest.name}: {len(data)} queries, {len(data.experts)} experts, {splits} splits")
    print(f"verdicts are on {contest.ours!r}\n{HEAD}")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["aiq"]):
        low, high = row["aiq_interval"]
        print(
            f"{name:30}{row['aiq']:7.4f}  [{low:.4f}, {high:.4f}]  {row['aiq_per_split'][0]:7.4f}"
            f"{row['ratio_to_ours']:7.3f}{_gap(row)}{row['quality']:7.4f}{_spent(row)}"
        )
    for name, row in rows.items():
        if "route_ms" in row:
            print(f"  {name}: a whole route() call {row['route_ms']:.3f} ms beyond the encoder")


def _gap(row: dict[str, Any]) -> str:
    low, high = row["difference_interval"]
    said = row["verdict"] if (low, high) != (0, 0) else ""
    return f"{row['ours_less_it']:+13.4f}  [{low:+.4f}, {high:+.4f}]  {said:17}"


def _spent(row: dict[str, Any]) -> str:
    if "ms" not in row:
        return ""
    memory = "-" if row["fit_mib"] is None else f"{row['fit_mib']:.0f}"
    return (
        f"{row['ms']:9.3f}{row['ms_1000']:9.1f}{row['time_ratio']:8.2f}"
        f"{row['fit_s']:8.1f}{memory:>7}"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    beside = Path(__file__).resolve().parents[2] / "shared/data"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path,
                        default=Path(os.environ.get("EXPERT_COMPOSER_SHARED", beside)))  # fmt: skip
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5, help="random splits beside the own one")
    parser.add_argument("--ours", default="auto", help="which router the others are compared with")
    parser.add_argument("--jobs", type=int, default=2, help="processes for random splits")
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--encoders", nargs="*", metavar="MODEL",
                        help="compare encoders instead, and these models")  # fmt: skip
    parser.add_argument("--routers", nargs="+", default=(), help="only these of ours")
    parser.add_argument("--limits", action="store_true", help="time and memory at 10,000 queries")
    return parser.parse_args(arguments)


def main() -> None:
    """Parse, run, write."""
    options = parse()
    began = time.perf_counter()
    if options.limits:
        found: dict[str, Any] = limits.run(options.routers)
    elif options.encoders is not None:
        found = encoders.run(options.folder, options.tables, options.encoders, options.ours)
    else:
        found = compare(options, CachedEncoder(encoders.minilm()))
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
