"""The server that clients are tried on: echo experts, a retriever, an upstream that calls tools."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from composer.http.app import create_app
from tests.composer.http.servers import running
from tests.composer.http.upstream import Upstream

__all__ = ["door"]

# The names are those that OpenAI's own tests ask for.
REGISTRY = """\
version: 1
experts:
  - {name: gpt-4o-mini, kind: llm, backend: echo, model: echo}
  - {name: gpt-4o, kind: llm, backend: echo, model: echo}
  - {name: gpt-5.4, kind: llm, backend: echo, model: echo}
  - {name: gpt-3.5-turbo-instruct, kind: llm, backend: echo, model: echo}
  - {name: gpt-tools, kind: llm, backend: openai, model: far-1, options: {base_url: "URL/v1"}}
  - {name: text-embedding-3-small, kind: retriever, backend: hashing, model: hashing}
"""


@contextmanager
def door(folder: Path) -> Iterator[str]:
    """Serve from a folder; yield the address that ends in /v1."""
    path = folder / "experts.yaml"
    with running(Upstream()) as upstream:
        path.write_text(REGISTRY.replace("URL", upstream))
        with running(create_app(path)) as url:
            yield f"{url}/v1"
