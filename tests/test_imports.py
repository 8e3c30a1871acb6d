import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("composer", "routers", "experts_registry")
HEAVY = (
    "torch", "transformers", "ray", "faiss", "httpx", "sklearn", "pyarrow", "matplotlib",
    "starlette", "uvicorn",
)  # fmt: skip


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_packages_loads_nothing_heavy():
    loaded = run(f"import sys, {', '.join(PACKAGES)}; print(*sorted(sys.modules))").split()
    assert not set(HEAVY) & set(loaded)


def test_the_sdk_itself_loads_nothing_heavy():
    loaded = run("import sys; from composer import Composer; print(*sorted(sys.modules))").split()
    assert not set(HEAVY) & set(loaded)


def test_importing_opens_no_socket():
    run(
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "import composer, routers, experts_registry\n"
        "from composer import Composer\n"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_exists(package):
    module = __import__(package)
    assert all(hasattr(module, name) for name in module.__all__)


def sources():
    # The sandbox's child is there to run code that was just generated.
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [path for path in paths if path.name != "sandbox_child.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_source_unpickles_or_evaluates(path):
    tree = ast.parse(path.read_text())
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (
            node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")]
        )
    }
    assert not imported & {"pickle", "joblib", "dill", "marshal"}
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id in {"eval", "exec"}]
    unsafe = [
        f
        for f in calls
        if isinstance(f, ast.Attribute)
        and isinstance(f.value, ast.Name)
        and (f.value.id, f.attr) in {("torch", "load"), ("yaml", "load")}
    ]
    assert not unsafe
