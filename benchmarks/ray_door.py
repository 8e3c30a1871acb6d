"""What Ray Serve costs, and what one more ingress replica adds: chats of an echo expert over HTTP.

    python benchmarks/ray_door.py [--seconds 3] [--rounds 5] [--clients 16]

Every server runs all the time and is asked in its turn, round after round, so that a slow moment of
the machine hits all of them. Prints requests a second at many clients, the median wait at one, and
the CPU of the server with everything that it started, with ratios to `serve`, one process. The
clients are one more process: on a machine of two cores a second replica has no core of its own, so
that what it adds there is a lower bound. Linux only.
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

COMMAND = [sys.executable, "-c", "from composer.cli import main; main()"]
FILE = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
"""
BODY = {"model": "bird", "messages": [{"role": "user", "content": "Which boat is the smallest?"}]}
SERVERS = {
    "serve": ["serve", "-r", "FILE"],
    "serve --workers": ["serve", "-r", "FILE", "--workers"],
    "deploy, 1 replica": ["deploy", "FILE", "--replicas", "1"],
    "deploy, 2 replicas": ["deploy", "FILE", "--replicas", "2"],
    "deploy --no-fast, 1 replica": ["deploy", "FILE", "--replicas", "1", "--no-fast"],
}


@dataclass
class Server:
    """One server that runs, and a figure of each round."""

    port: int
    process: psutil.Process
    rates: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    def used(self) -> float:
        """Return the CPU seconds so far of the server and everything that it started."""
        every = (self.process, *self.process.children(recursive=True))
        return sum(sum(process.cpu_times()[:2]) for process in every)

    def measure(self, clients: int, seconds: float) -> None:
        """Take one figure of each kind."""
        self.waits.append(1000 * statistics.median(asyncio.run(load(self.port, 1, seconds / 2))))
        before, began = self.used(), time.monotonic()
        answered = len(asyncio.run(load(self.port, clients, seconds)))
        self.rates.append(answered / (time.monotonic() - began))
        self.cpus.append(1000 * (self.used() - before) / answered)


@contextmanager
def running(arguments: list[str], path: Path) -> Iterator[Server]:
    """Start a server and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = [str(path) if word == "FILE" else word for word in arguments]
    command = [*COMMAND, *words, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if "Serving" not in process.stdout.readline():
            raise SystemExit(f"does not start: {' '.join(words)}")
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=90)


async def load(port: int, clients: int, seconds: float) -> list[float]:
    """Ask over so many connections at once; return the seconds that each answer took."""
    waits: list[float] = []
    end = time.monotonic() + seconds
    await asyncio.gather(*(_ask(port, end, waits) for _ in range(clients)))
    return waits


async def _ask(port: int, end: float, waits: list[float]) -> None:
    body = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"port {port}: {answer.decode()}")
        length = answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        await reader.readexactly(int(length))
        waits.append(time.perf_counter() - began)
    writer.close()


def told(servers: dict[str, Server]) -> Iterator[str]:
    """Yield the table."""
    base = servers["serve"]
    yield f"{'':<28} {'requests/s':>14} {'CPU ms/request':>18} {'ms at 1 client':>18}"
    for name, server in servers.items():
        pairs = [(server.rates, base.rates), (server.cpus, base.cpus), (server.waits, base.waits)]
        cells = []
        for mine, theirs in pairs:
            ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
            cells.append(f"{statistics.median(mine):9.2f} x{ratio:6.2f}")
        yield f"{name:<28} {cells[0]:>14} {cells[1]:>18} {cells[2]:>18}"
    one, two = servers["deploy, 1 replica"], servers["deploy, 2 replicas"]
    more = statistics.median(b / a for a, b in zip(one.rates, two.rates, strict=True))
    cost = statistics.median(b / a for a, b in zip(one.cpus, two.cpus, strict=True))
    yield f"one more replica: x{more:.2f} requests/s, x{cost:.2f} CPU/request"


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        servers = {}
        for number, (name, arguments) in enumerate(SERVERS.items()):
            path = Path(folder) / str(number) / "experts.yaml"
            path.parent.mkdir()
            path.write_text(FILE)
            servers[name] = stack.enter_context(running(arguments, path))
        for turn in range(options.rounds + 1):
            for server in servers.values():
                server.measure(options.clients, options.seconds)
                if not turn:  # warms up
                    server.rates, server.waits, server.cpus = [], [], []
        print("\n".join(told(servers)))


if __name__ == "__main__":
    main()
