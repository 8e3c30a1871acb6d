"""Registries of echo experts: real experts that need no model."""

from pathlib import Path

import pytest

from experts_registry.schema import ExpertSpec

REGISTRY = """\
version: 1
experts:
  - {name: cheap, kind: llm, backend: echo, model: echo, price: {prompt: 1, completion: 2}}
  - {name: dear, kind: llm, backend: echo, model: echo, price: {prompt: 9, completion: 9}}
  - {name: dead, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
  - {name: slow, kind: llm, backend: echo, model: echo, limits: {seconds: 0.05},
     options: {delay: 30}}
  - {name: patient, kind: llm, backend: echo, model: echo, options: {delay: 60}}
  - {name: words, kind: retriever, backend: hashing, model: hashing}
compositions:
  - {name: shaky, experts: [dead, cheap], baseline: dead}
  - {name: doomed, experts: [dead]}
  - {name: frugal, experts: [cheap, dear], baseline: dear, limits: {usd_per_request: 0.001}}
  - {name: hasty, experts: [cheap], limits: {seconds: 5, max_tokens: 2}}
"""


@pytest.fixture
def registry_path(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(REGISTRY)
    return path


def echo(name: str, **fields: object) -> ExpertSpec:
    return ExpertSpec(name=name, kind="llm", backend="echo", model="echo", **fields)
