"""Write a starter registry and query file that work without a download."""

import json
from importlib.resources import files
from pathlib import Path

from experts_registry.errors import RegistryError
from experts_registry.registry import registry_schema

__all__ = ["write_starter"]

_FILES = ("experts.yaml", "queries.jsonl")
_SCHEMA = "experts.schema.json"  # the starter's first line points editors at it


def write_starter(folder: Path, *, force: bool = False) -> list[Path]:
    """Write ``experts.yaml``, ``queries.jsonl`` and the file's JSON Schema; return their paths.

    Raises:
        RegistryError: a file exists and ``force`` is not given, or the folder cannot be written.
    """
    paths = [folder / name for name in _FILES]
    schema = folder / _SCHEMA
    if not force and (existing := [str(path) for path in paths if path.exists()]):
        raise RegistryError(f"{', '.join(existing)}: exists; use --force to replace it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            template = files("composer") / "templates" / path.name
            path.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        schema.write_text(json.dumps(registry_schema(), indent=1), encoding="utf-8")
    except OSError as error:
        raise RegistryError(f"{folder}: cannot be written: {error.strerror}") from error
    return [*paths, schema]
