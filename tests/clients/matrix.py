"""Try common clients of OpenAI's API on our server: chat, streams, tools, embeddings.

Each is installed into an environment of its own; what cannot be had is skipped, with the reason.
The exit status is 1 where a client that could be had does not do something.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.door import door
from tests.clients.environments import NotInstalled, node_folder, python_of

DRIVERS = Path(__file__).parent / "drivers"
SCENARIOS = ("chat", "stream", "tools", "embeddings")
SECONDS = 300


@dataclass(frozen=True)
class Client:
    """A client, its packages, and what drives it."""

    name: str
    packages: tuple[str, ...]
    driver: str

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Install it; return how it is run, and with which variables."""
        driver = str(DRIVERS / self.driver)
        if driver.endswith(".mjs"):
            folder = node_folder(self.name, self.packages)
            return ["node", driver], {"NODE_FOLDER": str(folder)}
        return [str(python_of(self.name, self.packages)), driver], {}

    def version(self, command: list[str], variables: dict[str, str]) -> str:
        """Say which version was installed."""
        package = self.packages[0]
        if "NODE_FOLDER" in variables:
            manifest = Path(variables["NODE_FOLDER"]) / "node_modules" / package / "package.json"
            code = [*command[:1], "-p", f"require({str(manifest)!r}).version"]
        else:
            code = [
                *command[:1],
                "-c",
                f"from importlib.metadata import *;print(version({package!r}))",
            ]
        return subprocess.run(code, capture_output=True, text=True, check=True).stdout.strip()


CLIENTS = (
    Client("openai-python", ("openai",), "openai_python.py"),
    Client("openai-node", ("openai",), "openai_node.mjs"),
    Client("langchain-openai", ("langchain-openai",), "langchain.py"),
    Client("litellm", ("litellm",), "litellm_sdk.py"),
    Client("llm", ("llm",), "llm_library.py"),
)


@dataclass
class Row:
    """What a client did."""

    client: str
    version: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return all(cell != "FAILED" for cell in self.cells.values())


def main(names: list[str], *, say: Callable[[str], object] = print) -> int:
    """Try the clients of these names, or all of them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, door(Path(folder)) as url:
        rows = [_tried(one, url) for one in CLIENTS if not names or one.name in names]
    say(f"{'client':18}{'version':12}" + "".join(f"{scenario:12}" for scenario in SCENARIOS))
    for row in rows:
        cells = "".join(f"{row.cells.get(scenario, 'skipped'):12}" for scenario in SCENARIOS)
        say(f"{row.client:18}{row.version:12}{cells}".rstrip())
    for row in rows:
        for note in row.notes:
            say(f"\n{row.client}: {note}")
    return 0 if rows and all(row.is_good for row in rows) else 1


def _tried(client: Client, url: str) -> Row:
    row = Row(client.name)
    try:
        command, variables = client.command()
    except NotInstalled as reason:
        row.notes.append(f"skipped: {reason}")
        return row
    row.version = client.version(command, variables)
    own = {
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "none",
        "NO_PROXY": "*",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched
    }
    for scenario in SCENARIOS:
        done = subprocess.run(
            [*command, scenario], env={**os.environ, **own, **variables},
            capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
        row.cells[scenario] = "FAILED" if done.returncode else "ok"
        if done.returncode:
            row.notes.append(f"{scenario}: {done.stderr.strip()[-1500:]}")
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
