"""Replace the folder of a router as a whole, and keep the one that was there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from experts_registry.errors import ArtefactError, DataError

__all__ = ["alone", "previous_of", "swap", "workshop"]


def previous_of(path: Path) -> Path:
    """Return where the folder that was replaced last is kept."""
    return path.with_name(f"{path.name}.previous")


def swap(path: Path, draft: Path) -> Path:
    """Put a folder in the place of another, which becomes the previous one; return that."""
    previous = previous_of(path)
    with _disk(path):
        if previous.exists():
            shutil.rmtree(previous)
        path.rename(previous)
        try:
            draft.rename(path)
        except OSError:
            previous.rename(path)
            raise
    return previous


@contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """Give the name of a folder beside the router, which is gone afterwards."""
    draft = path.with_name(f".{path.name}.draft")
    with _disk(draft):
        shutil.rmtree(draft, ignore_errors=True)  # what a killed run left
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time retrain a router."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    with _disk(path):
        try:
            lock.acquire()
        except Timeout:
            raise DataError(f"{path}: is being retrained by another process; wait for it") from None
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtefactError(
            f"{path}: cannot be written ({error.strerror or error}); make room or make it writable"
        ) from error
