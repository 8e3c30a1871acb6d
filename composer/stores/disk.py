"""Write to disk so that what is there after a crash is whole, and say what a full disk means."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experts_registry.errors import DataError

__all__ = ["file_digest", "replaced", "synced", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what a full or read-only disk means for a store.

    Raises:
        DataError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or write where "
            "you may, then repeat the command: finished batches are kept"
        ) from error


def replaced(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    synced(partial)
    partial.replace(path)
    synced(path.parent)


def synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
