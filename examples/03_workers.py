"""Run experts on Ray workers, kill one in the middle of a call, and get the answer all the same."""

import asyncio
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

from composer import Composer

REGISTRY = """
version: 1
experts:
  - name: thinker
    kind: llm
    backend: echo
    model: echo
    resources: {cpus: 0.5, replicas: 2}
    options: {delay: 1.0}
"""


async def ask_while_killing(path: Path) -> None:
    """Ask four questions and kill both workers while they think."""
    async with Composer.load(path, workers=True) as composer:
        pids = await composer.dispatcher.pids("thinker")  # type: ignore[attr-defined]
        questions = asyncio.gather(*(composer.aquery(f"question {i}") for i in range(4)))
        await asyncio.sleep(0.3)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for answer in await questions:
            print(f"{answer.expert}: {answer.text}")


def main() -> None:
    """Write the registry and ask."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experts.yaml"
        path.write_text(REGISTRY)
        asyncio.run(ask_while_killing(path))


if __name__ == "__main__":
    main()
