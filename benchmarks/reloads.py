"""Edit the expert file over and over while 16 clients ask: no request may fail.

    python benchmarks/reloads.py [--reloads 100] [--requests 10000] [--json FILE]

Every edit renames an expert's upstream model, retrains nothing, and is waited for before the next
one is written. Prints what came of the requests, and which generations served them. Exits with 1
where a request failed or a generation was skipped. Linux only.
"""

import argparse
import asyncio
import itertools
import json
import re
import statistics
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from gateways.client import Load, load, request
from gateways.processes import Gateway, composer, direct

CLIENTS = 16
QUESTION = "Which of these is the better word for a small boat?"
_GENERATION = re.compile(rb"\r\nx-composer-generation: (\d+)\r\n")


@dataclass(frozen=True)
class Result:
    """What came of it."""

    reloads: int
    requests: int
    failures: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    seconds: float
    reload_p50_s: float
    generations: dict[int, int]

    @property
    def holds(self) -> bool:
        """Whether every request was answered, and every generation served."""
        return not self.failures and len(self.generations) == self.reloads + 1


def edit(path: Path, number: int) -> None:
    """Change the file as editors should: beside it, then renamed."""
    text = re.sub(r"model: mock\S*,", f"model: mock-{number},", path.read_text())
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def generation(gateway: Gateway) -> int:
    """Ask which edition serves."""
    url = f"http://127.0.0.1:{gateway.port}/admin/registry"
    asked = urllib.request.Request(url, headers={"authorization": f"Bearer {gateway.token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found = json.load(answer)
    assert found["last_reload"] is None or found["last_reload"]["ok"], found["last_reload"]
    return int(found["generation"])


async def reload_all(gateway: Gateway, path: Path, reloads: int, served: list[int]) -> list[float]:
    """Edit, wait until the edit serves and was asked, and so on; return how long each took."""
    took = []
    for number in range(1, reloads + 1):
        began = time.perf_counter()
        edit(path, number)
        while await asyncio.to_thread(generation, gateway) <= number:
            await asyncio.sleep(0.01)
        took.append(time.perf_counter() - began)
        so_far = len(served)
        while len(served) < so_far + 2 * CLIENTS:  # each client has asked this edition
            await asyncio.sleep(0.01)
    return took


async def measure(gateway: Gateway, path: Path, *, reloads: int, requests: int) -> Result:
    """Ask while the file is edited; at least so many requests, and until the last edit serves."""
    served: list[int] = []

    def seen(answer: bytes) -> None:
        served.append(int(found[1]) if (found := _GENERATION.search(answer)) else 0)

    edits = asyncio.create_task(reload_all(gateway, path, reloads, served))
    asks = itertools.takewhile(lambda n: n < requests or not edits.done(), itertools.count())
    sent = request("auto", QUESTION, token=gateway.token)
    done: Load = await load(gateway.port, sent, requests=asks, connections=CLIENTS, seen=seen)
    took = await edits
    waits = sorted(1000 * wait for wait in done.waits)
    for failure in done.failures[:3]:
        print(failure, file=sys.stderr)
    return Result(
        reloads=reloads,
        requests=len(waits) + len(done.failures),
        failures=len(done.failures),
        p50_ms=statistics.median(waits),
        p99_ms=waits[int(0.99 * len(waits))],
        slowest_ms=waits[-1],
        seconds=done.seconds,
        reload_p50_s=statistics.median(took),
        generations=dict(sorted(Counter(served).items())),
    )


def show(found: Result) -> None:
    """Print the table."""
    served = found.generations
    rows = {
        "reloads": found.reloads,
        "requests": f"{found.requests:,}",
        "failures": found.failures,
        "generations that served": f"{len(served)} ({min(served)} to {max(served)})",
        "fewest requests of a generation": min(served.values()),
        "p50, p99, slowest (ms)": f"{found.p50_ms:.1f}, {found.p99_ms:.1f}, {found.slowest_ms:.0f}",
        "requests a second": f"{found.requests / found.seconds:.0f}",
        "from an edit until it serves (s)": f"{found.reload_p50_s:.2f}",
    }
    for name, value in rows.items():
        print(f"{name:<34}{value:>22}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--requests", type=int, default=10_000, help="at least so many")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    asked = parser.parse_args()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(direct(folder))
        gateway = stack.enter_context(composer(upstream.port, folder / "ours", is_admin=True))
        path = folder / "ours" / "experts.yaml"
        found = uvloop.run(measure(gateway, path, reloads=asked.reloads, requests=asked.requests))
    show(found)
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(found), indent=1))
    sys.exit(not found.holds)


if __name__ == "__main__":
    main()
