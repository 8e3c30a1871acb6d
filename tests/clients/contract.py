"""Run openai-python's own API-resource tests against our server, and print what passes.

They come from the source package of the installed version. Without arguments: a table of counts,
then each test that does not pass and why; the exit status is 1 where the why is not known.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.clients.door import door
from tests.clients.environments import home, python_of

FILES = (
    "tests/api_resources/chat/test_completions.py",
    "tests/api_resources/test_completions.py",
    "tests/api_resources/test_embeddings.py",
    "tests/api_resources/test_models.py",
)
# Tests that contradict one another, the client or the API, by what their names match.
NOT_TOGETHER: Mapping[str, str] = {
    r"chat\.test_completions.*_(retrieve|update|delete)\[": (
        "retrieve, update and delete 'completion_id', which no test creates: what one deletes "
        "the next wants back"
    ),
    r"test_models.*_delete\[": (
        "delete 'ft:gpt-4o-mini:acemeco:suffix:abc123' again and again, though once deleted it "
        "is gone; models come from the expert file, so that the API deletes none"
    ),
    r"test_embeddings.*(method_create|response_create)\[(strict|aiohttp)\]": (
        "say nothing of a format, for which the client itself asks for base64, and then refuse "
        "base64, being strict; who asks for base64 gets it here, as from OpenAI"
    ),
}


@dataclass(frozen=True)
class Result:
    """One test, and how it failed if it did."""

    file: str
    name: str
    outcome: str
    message: str = ""

    @property
    def why(self) -> str | None:
        """Why it cannot pass, if that is known."""
        named = f"{self.file}.{self.name}"
        return next((why for what, why in NOT_TOGETHER.items() if re.search(what, named)), None)


def main() -> int:
    """Run them."""
    version = importlib.metadata.version("openai")
    packages = (f"openai[aiohttp]=={version}", "pytest", "pytest-asyncio", "respx", "rich")
    python = python_of(f"openai-{version}", packages)
    source = _source(python, version)
    with tempfile.TemporaryDirectory() as folder, door(Path(folder)) as url:
        results = [*_run(python, source, url, Path(folder) / "report.xml")]
    print(f"openai-python {version}, its own tests of API resources\n")
    _print_table(results)
    return _print_failures(results)


def _source(python: Path, version: str) -> Path:
    """Fetch and unpack the source package, which has the tests."""
    folder = home() / "sources"
    unpacked = folder / f"openai-{version}"
    if not unpacked.exists():
        wanted = ("--no-deps", "--no-binary", "openai", f"openai=={version}")
        command = (str(python), "-m", "pip", "download", "--quiet", "-d", str(folder), *wanted)
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        with tarfile.open(folder / f"openai-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked


def _run(python: Path, source: Path, url: str, report: Path) -> Iterator[Result]:
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider",
         f"--junitxml={report}", *FILES],
        cwd=source, env={**os.environ, "TEST_API_BASE_URL": url, "NO_PROXY": "*"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not report.exists():
        raise SystemExit(done.stdout + done.stderr)
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.attrib["classname"].removeprefix("tests.api_resources.")
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        is_skipped = case.find("skipped") is not None
        outcome = "failed" if problem is not None else "skipped" if is_skipped else "passed"
        message = "" if problem is None else problem.attrib.get("message", "")
        yield Result(file, case.attrib["name"], outcome, message)


def _print_table(results: list[Result]) -> None:
    counts = Counter((r.file.rpartition(".")[0], r.outcome) for r in results)
    print(f"{'tests':34}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for file in sorted({file for file, _ in counts}):
        row = [counts[file, outcome] for outcome in ("passed", "failed", "skipped")]
        print(f"{file:34}" + "".join(f"{number:8}" for number in row))
    total = Counter(r.outcome for r in results)
    print(f"{'all':34}{total['passed']:8}{total['failed']:8}{total['skipped']:8}")


def _print_failures(results: list[Result]) -> int:
    failed = [r for r in results if r.outcome == "failed"]
    for why in NOT_TOGETHER.values():
        names = sorted({f"{r.file}.{r.name.partition('[')[0]}" for r in failed if r.why == why})
        print(f"\n{why}:", *names, sep="\n  ")
    unknown = [r for r in failed if r.why is None]
    for result in unknown:
        print(f"\nunexpected: {result.file}.{result.name}: {result.message[:300]}")
    return bool(unknown) or not results


if __name__ == "__main__":
    sys.exit(main())
