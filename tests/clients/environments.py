"""Virtual environments and Node folders for clients, kept between runs."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["NotInstalled", "home", "node_folder", "python_of"]

SECONDS = 900


class NotInstalled(Exception):  # noqa: N818 - a reason to skip
    """A client cannot be had here."""


def home() -> Path:
    """Where environments are; CLIENTS_HOME says it."""
    default = Path(tempfile.gettempdir()) / "expert-composer-clients"
    folder = Path(os.environ.get("CLIENTS_HOME", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python_of(name: str, packages: Sequence[str]) -> Path:
    """Return the interpreter of an environment with these packages."""
    folder = home() / name
    python = folder / "bin" / "python"
    done = folder / "packages.txt"
    if not done.exists() or done.read_text() != "\n".join(packages):
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", *packages)
        done.write_text("\n".join(packages))
    return python


def node_folder(name: str, packages: Sequence[str]) -> Path:
    """Return a folder whose Node programs find these packages."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise NotInstalled("node and npm are not installed")
    folder = home() / name
    folder.mkdir(exist_ok=True)
    if not (folder / "node_modules").exists():
        _run("npm", "install", "--silent", "--prefix", str(folder), *packages)
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NotInstalled(f"{Path(command[0]).name}: {last}")
