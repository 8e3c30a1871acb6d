"""Run a generated program in a process of its own, with limits.

This stops accidents, not attackers: endless loops, huge allocations, floods of output, forgotten
children, stray network calls. It is no security boundary: the program runs as the same user and
can read that user's files. Collect from experts you do not trust in a container or a virtual
machine. What holds where:

- everywhere: time, memory per process (not on macOS), file size, open files, output kept, an
  empty working folder that is removed, an empty environment, no standard input;
- Linux with user namespaces: no network, and no process outlives the program. Without them, the
  network stays reachable and a child that starts its own session survives.
"""

import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experts_registry.errors import CapacityError

__all__ = ["Outcome", "run_code"]

_CHILD = str(Path(__file__).with_name("sandbox_child.py"))
_TAIL_BYTES = 4000
_POLL_SECONDS = 0.05
_WALL_FACTOR = 3  # a busy machine must not fail a program that stays within its CPU time


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended.

    Args:
        ok: its last line was reached and it exited with 0.
        exit_code: the exit code, 128 + n after signal n; ``None`` when it was stopped.
        stdout_tail: the end of what it printed.
        stderr_tail: the end of its error output.
        reason: why it is not ok, for people; empty when it is.
    """

    ok: bool
    exit_code: int | None
    stdout_tail: str
    stderr_tail: str
    reason: str


def run_code(source: str, *, seconds: float = 5.0, memory_mb: int = 512) -> Outcome:
    """Run Python source; it is ok only if its very last line was reached.

    So neither ``sys.exit(0)`` nor ``os._exit(0)`` before the tests that follow an answer passes.

    Args:
        source: the program; it runs as the module ``answer``, not as ``__main__``.
        seconds: CPU time, rounded up to whole seconds; by the clock it may take three times that.
        memory_mb: address space of each process.

    Raises:
        CapacityError: no process can be started on this machine.
    """
    token = secrets.token_hex(8)
    reading, writing = os.pipe()
    job = {
        "source": source,
        "token": token,
        "finished": writing,
        "cpu_seconds": math.ceil(seconds),
        "memory_mb": memory_mb,
    }
    with (
        open(reading, "rb", buffering=0) as finished,  # noqa: PTH123  a descriptor, not a path
        tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder,
        _started(folder, writing) as process,
    ):
        with suppress(BrokenPipeError):  # it ended before it read: its exit code tells
            process.stdin.write(json.dumps(job).encode())  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
        pipes = (process.stdout, process.stderr, finished)
        exit_code, tails = _watch(process, pipes, time.monotonic() + _WALL_FACTOR * seconds)
    stdout, stderr, said = (tail.decode(errors="replace") for tail in tails)
    ok = exit_code == 0 and said.startswith(token)
    return Outcome(
        ok=ok,
        exit_code=exit_code,
        stdout_tail=stdout,
        stderr_tail=stderr,
        reason="" if ok else _reason(exit_code, stderr, seconds),
    )


@contextmanager
def _started(folder: str, writing: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the child; nothing of its process group is left on the way out."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(writing,),
            cwd=folder,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise CapacityError(
            f"sandbox: no process can be started ({error.strerror}); free memory or processes"
        ) from error
    finally:
        os.close(writing)
    with process:
        try:
            yield process
        finally:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone already
        os.killpg(process.pid, signal.SIGKILL)


def _watch(
    process: subprocess.Popen[bytes], pipes: Sequence[Any], deadline: float
) -> tuple[int | None, list[bytes]]:
    """Keep the end of each pipe until the process ends; ``None`` where the deadline ended it."""
    tails = [b""] * len(pipes)
    with selectors.DefaultSelector() as selector:
        for i, pipe in enumerate(pipes):
            selector.register(pipe, selectors.EVENT_READ, i)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(min(left, _POLL_SECONDS)):
                if chunk := os.read(key.fd, 1 << 16):
                    tails[key.data] = (tails[key.data] + chunk)[-_TAIL_BYTES:]
                else:
                    selector.unregister(key.fileobj)
            if process.poll() is not None:
                _kill(process)  # a child it left behind may hold the pipes open
    try:
        return process.wait(max(0.0, deadline - time.monotonic())), tails
    except subprocess.TimeoutExpired:
        return None, tails


def _reason(exit_code: int | None, stderr: str, seconds: float) -> str:
    if exit_code is None:
        return f"took longer than {_WALL_FACTOR * seconds:g} s by the clock"
    if exit_code == 128 + signal.SIGXCPU:
        return f"took longer than {math.ceil(seconds)} s of CPU time"
    if exit_code == 0:
        return "exited before its last line"
    if exit_code > 128:
        return f"was ended by signal {exit_code - 128}"
    lines = stderr.strip().splitlines()
    return lines[-1][:200] if lines else f"exited with code {exit_code}"
