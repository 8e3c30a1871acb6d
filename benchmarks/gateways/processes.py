"""Each gateway in a process of its own, as its makers start it, with a model `auto` on the mock."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from composer.key_store import KeyStore
from composer.opening import open_embedder
from composer.training import train
from experts_registry import Registry
from gateways.client import request
from routers.building import build_router
from routers.testing import synthetic_outcomes

__all__ = ["Gateway", "bare", "composer", "direct", "litellm"]

_BENCHMARKS = Path(__file__).parents[1]
_STARTING_SECONDS = 120.0
_REGISTRY = """\
version: 1
encoder: words
experts:
  - {name: expert-0, kind: llm, backend: openai, model: mock, price: {prompt: 0.1, completion: 0.2},
     options: {base_url: "http://127.0.0.1:PORT/v1"}}
  - {name: expert-1, kind: llm, backend: openai, model: mock, price: {prompt: 0.2, completion: 0.4},
     options: {base_url: "http://127.0.0.1:PORT/v1"}}
  - {name: expert-2, kind: llm, backend: openai, model: mock, price: {prompt: 0.4, completion: 0.8},
     options: {base_url: "http://127.0.0.1:PORT/v1"}}
  - {name: words, kind: retriever, backend: hashing, model: hashing,
     options: {dimensions: 64, longest: 3}}
compositions:
  - {name: auto, experts: [expert-0, expert-1, expert-2], router: router}
"""
_LITELLM = """\
model_list:
  - model_name: auto
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:PORT/v1
      api_key: sk-mock
litellm_settings: {num_retries: 0, telemetry: false}
general_settings: {master_key: MASTER}
"""
_MASTER = "sk-benchmark-5f1c9a7be2d04c33"


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Args:
        name: for people.
        port: on loopback.
        pid: of its process, whose children count too.
        token: its API key; empty where it asks for none.
    """

    name: str
    port: int
    pid: int
    token: str = ""

    def cpu(self) -> float:
        """Return the CPU seconds so far."""
        root = psutil.Process(self.pid)
        pids = [self.pid, *(child.pid for child in root.children(recursive=True))]
        # Linux' clock of a process, in nanoseconds; psutil's counts hundredths of a second.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


@contextmanager
def direct(folder: Path) -> Iterator[Gateway]:
    """Start the upstream itself."""
    port = _free_port()
    command = [sys.executable, str(_BENCHMARKS / "gateways/mock.py"), str(port)]
    with _running("direct", command, port, folder) as gateway:
        yield gateway


@contextmanager
def bare(upstream: int, folder: Path) -> Iterator[Gateway]:
    """Start a proxy of Starlette and aiohttp that does nothing but pass on."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "gateways.bare:app", "--port", str(port)]
    command += ["--app-dir", str(_BENCHMARKS), "--no-access-log", "--log-level", "warning"]
    env = {"UPSTREAM": f"http://127.0.0.1:{upstream}"}
    with _running("Starlette+aiohttp", command, port, folder, env=env) as gateway:
        yield gateway


@contextmanager
def composer(upstream: int, folder: Path, *, is_admin: bool = False) -> Iterator[Gateway]:
    """Start ours: a key with a budget and rates, a trained router over three experts, the log."""
    folder.mkdir()
    path = folder / "experts.yaml"
    path.write_text(_REGISTRY.replace("PORT", str(upstream)))
    registry, port = Registry.load(path), _free_port()
    assert registry.encoder is not None
    encoder = open_embedder(registry.encoder)
    train(build_router("linear", encoder, {}), synthetic_outcomes(experts=3), folder / "router")
    keys = KeyStore(folder / "keys.db")
    limits = {"usd": 1000.0, "per": "month", "rpm": 10**9, "tpm": 10**12}
    token = keys.create("benchmark", models=("auto",), is_admin=is_admin, **limits).token
    keys.close()
    command = [sys.executable, "-c", "from composer.cli import main; main()", "serve"]
    # No line a request: nobody else here writes one.
    command += ["--registry", str(path), "--port", str(port), "--log-level", "warning"]
    with _running("expert-composer", command, port, folder, token=token) as gateway:
        yield gateway


@contextmanager
def litellm(upstream: int, folder: Path, python: Path) -> Iterator[Gateway]:
    """Start LiteLLM's proxy from its own environment, one worker, with a master key."""
    folder.mkdir()
    config, port = folder / "litellm.yaml", _free_port()
    config.write_text(_LITELLM.replace("PORT", str(upstream)).replace("MASTER", _MASTER))
    command = [str(python.parent / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with _running("LiteLLM proxy", command, port, folder, token=_MASTER, env=env) as gateway:
        yield gateway


@contextmanager
def _running(
    name: str,
    command: Sequence[str],
    port: int,
    folder: Path,
    *,
    token: str = "",
    env: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    log = folder / "log.txt"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **(env or {})}, stdout=output, stderr=output
        )
    try:
        _wait(name, process, port, token, log)
        yield Gateway(name, port, process.pid, token)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(name: str, process: "subprocess.Popen[bytes]", port: int, token: str, log: Path) -> None:
    """Wait until it answers a real request."""
    until = time.monotonic() + _STARTING_SECONDS
    while not _answers(port, token):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"{name}: does not answer; it said:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def _answers(port: int, token: str) -> bool:
    sent = request("auto", "Are you there?", token=token)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(sent)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
