import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from composer.sandbox import run_code


def test_a_program_that_reaches_its_end_is_ok():
    outcome = run_code("print('hi')")
    assert (outcome.ok, outcome.exit_code, outcome.stdout_tail) == (True, 0, "hi\n")
    assert outcome.reason == ""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(:", "SyntaxError: invalid syntax"),
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("def f(): return f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("x = bytearray(10 << 30)", "MemoryError"),
        ("import sys; sys.exit(0)", "exited before its last line"),
        ("import os; os._exit(0)", "exited before its last line"),
        ("import sys; sys.exit(3)", "exited with code 3"),
        ("input()", "EOFError: EOF when reading a line"),
        ("open('x', 'wb').write(bytes(20 << 20))", "OSError: [Errno 27] File too large"),
        ("import ctypes; ctypes.string_at(0)", "was ended by signal 11"),
    ],
)
def test_a_program_that_does_not_reach_its_end_says_why(source, reason):
    outcome = run_code(source)
    assert not outcome.ok
    assert outcome.reason == reason


@pytest.mark.parametrize(
    "source", ["while True: pass", "import os\nwhile True: os.write(1, b'x' * 65536)"]
)
def test_a_program_without_end_is_stopped_and_its_output_is_not_kept(source):
    outcome = run_code(source, seconds=1)
    assert not outcome.ok
    assert "took longer than" in outcome.reason
    assert len(outcome.stdout_tail) <= 4000


def test_waiting_counts_by_the_clock():
    outcome = run_code("import time; time.sleep(60)", seconds=0.1)
    assert outcome.exit_code is None
    assert outcome.reason == "took longer than 0.3 s by the clock"


def test_a_child_that_the_program_leaves_behind_is_ended():
    source = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)"
    began = time.monotonic()
    assert run_code(source).ok
    assert time.monotonic() - began < 5


def test_the_program_sees_an_empty_folder_and_none_of_our_environment(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    source = "import os\nprint(os.listdir('.'), 'SOME_API_KEY' in os.environ, os.getcwd())"
    shown, key, folder = run_code(source).stdout_tail.split()
    assert (shown, key) == ("[]", "False")
    assert not Path(folder).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are a Linux thing")
def test_the_network_is_out_of_reach_where_the_kernel_allows_it():
    probe = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
        pytest.skip("this kernel allows no user namespaces")
    source = "import socket\nprint([name for _, name in socket.if_nameindex()])"
    assert run_code(source).stdout_tail == "['lo']\n"


def test_no_descriptor_is_left_open():
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    run_code("pass")
    before = count()
    run_code("pass")
    run_code("def f(:")
    assert count() == before


def test_a_main_block_does_not_run():
    assert run_code("if __name__ == '__main__':\n    raise ValueError").ok
