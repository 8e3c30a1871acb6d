"""Run the program on standard input under limits; started as a script by `composer.sandbox`.

It imports little, because every graded answer pays for it. On Linux the program becomes the
first process of its own PID namespace: when that ends, the kernel ends whatever it started.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_PDEATHSIG = 1
_MAX_FILE_BYTES = 8 << 20
_MAX_PROCESSES = 64


def main() -> NoReturn:
    """Read a job, run it in a child, end as the child ended."""
    job = json.loads(sys.stdin.buffer.read())
    libc = ctypes.CDLL(None)
    isolated = _leave_namespaces(libc)
    child = os.fork()
    if child == 0:
        if sys.platform == "linux":
            libc.prctl(_PDEATHSIG, signal.SIGKILL)
        _limit(job, isolated=isolated)
        _run(job)
        sys.exit(0)  # the ordinary way out: threads are joined, a failure in atexit shows
    os.close(job["finished"])
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime > job["cpu_seconds"] - 0.1:
        code = -signal.SIGXCPU  # the kernel's hard limit, told apart from other kills
    # A shell's convention, because an exit code cannot be negative.
    os._exit(code if code >= 0 else 128 - code)


def _leave_namespaces(libc: Any) -> bool:
    """Part from the network and the other processes, where the kernel lets us."""
    return sys.platform == "linux" and bool(libc.unshare(_NEWUSER | _NEWPID | _NEWNET) == 0)


def _limit(job: Any, *, isolated: bool) -> None:
    limits = {
        resource.RLIMIT_CPU: job["cpu_seconds"],
        resource.RLIMIT_AS: job["memory_mb"] << 20,
        resource.RLIMIT_FSIZE: _MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if isolated:  # elsewhere this counts every process of the user
        limits[resource.RLIMIT_NPROC] = _MAX_PROCESSES
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(kind, (bound, bound))


def _run(job: Any) -> None:
    """Execute the program as a module of its own, then say that its end was reached."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    module = ModuleType("answer")  # so a `__main__` block, which may wait for input, stays out
    sys.modules["answer"] = module
    exec(compile(job["source"], "answer.py", "exec"), module.__dict__)
    os.write(job["finished"], job["token"].encode())


if __name__ == "__main__":
    main()
