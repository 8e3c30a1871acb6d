"""Servers as a user starts them, and the processes that they start in turn."""

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["COMMAND", "descendants", "listeners", "title", "url_of"]

COMMAND = [sys.executable, "-c", "from composer.cli import main; main()"]


def url_of(process: "subprocess.Popen[str]") -> str:
    """Wait until a server says where it listens."""
    assert process.stdout is not None
    found = re.search(r"http://[^/]+", line := process.stdout.readline())
    assert found, line + (process.stderr.read() if process.stderr else "")
    return found.group()


def listeners(pid: int) -> set[str]:
    """The IPv4 addresses that a process listens on, as the kernel writes them: 0100007F is ours."""
    files = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {str(file)[8:-1] for file in files if str(file).startswith("socket:")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def title(pid: int) -> str:
    """The command line of a process, or nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(root: int) -> set[int]:
    """The processes that a process started, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}
