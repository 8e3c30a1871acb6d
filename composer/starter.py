"""Write a starter registry and query file that work without a download."""

from importlib.resources import files
from pathlib import Path

from experts_registry.errors import RegistryError

__all__ = ["write_starter"]

_FILES = ("experts.yaml", "queries.jsonl")


def write_starter(folder: Path, *, force: bool = False) -> list[Path]:
    """Write ``experts.yaml`` and ``queries.jsonl``; return their paths.

    Raises:
        RegistryError: a file exists and ``force`` is not given, or the folder cannot be written.
    """
    paths = [folder / name for name in _FILES]
    if not force and (existing := [str(path) for path in paths if path.exists()]):
        raise RegistryError(f"{', '.join(existing)}: exists; use --force to replace it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.write_text((files("composer") / "templates" / path.name).read_text())
    except OSError as error:
        raise RegistryError(f"{folder}: cannot be written: {error.strerror}") from error
    return paths
