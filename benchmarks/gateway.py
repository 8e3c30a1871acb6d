"""What a request costs on its way through a gateway: CPU, time, and how many a second.

    python benchmarks/gateway.py [--litellm PYTHON] [--rounds 5] [--requests 400] [--json FILE]

Every gateway is one process before the same upstream on this machine, which answers at once. They
take turns in short rounds, so that a slow moment of the machine hits all of them: CPU per request
and the ratios of one run say something on a busy machine, requests a second by themselves do not.
Exits with 1 where a target is missed. Linux only.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from gateways.client import load, request
from gateways.processes import Gateway, bare, composer, direct, litellm

OURS, BARE, LITELLM = "expert-composer", "Starlette+aiohttp", "LiteLLM proxy"
QUESTION = "Which of these is the better word for a small boat?"
_SLOW = 5  # LiteLLM gets one request where the others get so many


@dataclass(frozen=True)
class Case:
    """A kind of load; ``share`` of the requests of a round."""

    name: str
    connections: int
    share: float
    is_streamed: bool = False


CASES = (Case("one", 1, 1.0), Case("sixteen", 16, 2.0), Case("stream", 4, 0.5, is_streamed=True))


@dataclass
class Measured:
    """What one gateway did in one case, a figure each round: all but ``failures`` per request."""

    cpu_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    rps: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        """Median milliseconds of CPU."""
        return statistics.median(self.cpu_ms)


Results = dict[str, dict[str, Measured]]


@dataclass(frozen=True)
class Target:
    """A ratio of ours to another gateway, and what it must not exceed, or not fall below."""

    what: str
    ratio: float
    limit: float
    is_ceiling: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is met."""
        return self.ratio <= self.limit if self.is_ceiling else self.ratio >= self.limit


async def one_round(gateway: Gateway, case: Case, requests: int, found: Measured) -> None:
    """Ask a gateway for a while and note what it took."""
    sent = request("auto", QUESTION, token=gateway.token, stream=case.is_streamed)
    before = gateway.cpu()
    done = await load(gateway.port, sent, requests=range(requests), connections=case.connections)
    spent = gateway.cpu() - before
    found.failures += done.failures
    if done.waits:
        found.cpu_ms.append(1000 * spent / len(done.waits))
        found.p50_ms.append(1000 * statistics.median(done.waits))
        found.rps.append(len(done.waits) / done.seconds)


def measure(gateways: Sequence[Gateway], *, rounds: int, requests: int) -> Results:
    """Run every case on every gateway, in turns; a round before the first warms up."""
    found: Results = {g.name: {case.name: Measured() for case in CASES} for g in gateways}
    for turn in range(rounds + 1):
        for case in CASES:
            for gateway in gateways[turn % len(gateways) :] + gateways[: turn % len(gateways)]:
                slower = _SLOW if gateway.name == LITELLM else 1
                many = max(case.connections, round(case.share * requests / slower))
                into = found[gateway.name][case.name] if turn else Measured()
                uvloop.run(one_round(gateway, case, many, into))
        print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    return found


def targets(found: Results) -> list[Target]:
    """Compare ours with whoever took part."""
    ours, listed = found[OURS], []
    if LITELLM in found:
        theirs = found[LITELLM]
        for case in CASES:
            ratio = ours[case.name].cpu / theirs[case.name].cpu
            listed.append(Target(f"CPU, {case.name}, of LiteLLM's", ratio, 0.1))
        many = [statistics.median(each["sixteen"].rps) for each in (ours, theirs)]
        ratio = many[0] / many[1]
        listed.append(Target("requests a second, sixteen, x LiteLLM's", ratio, 8, is_ceiling=False))
    for name in ("one", "sixteen"):
        ratio = ours[name].cpu / found[BARE][name].cpu
        listed.append(Target(f"CPU, {name}, x the bare proxy's", ratio, 2.5))
    return listed


def show(found: Results) -> None:
    """Print a line a gateway: medians over rounds, with the least CPU in brackets."""
    print(f"{'':<19}{'one client':>26}{'16 clients':>28}{'34-event stream, 4 clients':>30}")
    heads = ("added p50", "CPU ms (min)", "requests/s", "CPU ms (min)", "CPU ms (min)", "p50 ms")
    print(f"{'gateway':<19}" + "".join(f"{head:>14}" for head in heads))
    base = statistics.median(found["direct"]["one"].p50_ms)
    for name, cases in found.items():
        one, many, stream = (cases[case.name] for case in CASES)
        cells = (
            f"{statistics.median(one.p50_ms) - base:.2f}",
            _cpu(one),
            f"{statistics.median(many.rps):,.0f}",
            _cpu(many),
            _cpu(stream),
            f"{statistics.median(stream.p50_ms):.1f}",
        )
        print(f"{name:<19}" + "".join(f"{cell:>14}" for cell in cells))


def _cpu(found: Measured) -> str:
    return f"{found.cpu:.2f} ({min(found.cpu_ms):.2f})"


def judge(listed: Sequence[Target]) -> bool:
    """Print the targets; tell whether all of them hold."""
    print(f"\n{'ours':<42}{'ratio':>8}{'target':>10}")
    for target in listed:
        sign = "<=" if target.is_ceiling else ">="
        word = "holds" if target.holds else "MISSED"
        print(f"{target.what:<42}{target.ratio:>8.3f}{f'{sign} {target.limit:g}':>10}  {word}")
    return all(target.holds for target in listed)


def run(python: Path | None, *, rounds: int, requests: int, file: Path | None) -> bool:
    """Start everything, measure, and print."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(direct(folder))
        gateways = [upstream, stack.enter_context(bare(upstream.port, folder))]
        gateways.append(stack.enter_context(composer(upstream.port, folder / "ours")))
        if python is None or not (python.parent / "litellm").exists():
            why = "no --litellm" if python is None else f"{python.parent} holds no litellm"
            print(f"LiteLLM proxy: skipped, {why}; see --help", file=sys.stderr)
        else:
            started = litellm(upstream.port, folder / "litellm", python)
            gateways.append(stack.enter_context(started))
        found = measure(gateways, rounds=rounds, requests=requests)
    failed = [(g, c, m.failures) for g, by in found.items() for c, m in by.items() if m.failures]
    for gateway, case, failures in failed:
        print(f"{gateway}, {case}: {len(failures)} failed, as {failures[0]}", file=sys.stderr)
    show(found)
    listed = targets(found)
    if file is not None:
        cases = {g: {c: asdict(m) for c, m in by.items()} for g, by in found.items()}
        values = {"cases": cases, "targets": [asdict(t) | {"holds": t.holds} for t in listed]}
        file.write_text(json.dumps(values, indent=1))
    return judge(listed) and not failed


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--litellm",
        type=Path,
        metavar="PYTHON",
        help="of an environment with litellm[proxy]==1.106.2; without it LiteLLM takes no part",
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each load")
    parser.add_argument("--requests", type=int, default=400, help="of a round with one client")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    asked = parser.parse_args()
    holds = run(asked.litellm, rounds=asked.rounds, requests=asked.requests, file=asked.json)
    sys.exit(not holds)


if __name__ == "__main__":
    main()
