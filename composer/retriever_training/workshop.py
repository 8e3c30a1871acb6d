"""Where a training is kept until it is done, so that a kill costs at most a few batches."""

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experts_registry.errors import DataError
from experts_registry.types import Embedder, FloatArray, Role

__all__ = ["Workshop", "disk"]

_TEXTS_AT_ONCE = 128


class Workshop:
    """A hidden folder beside the retriever's, which is gone when that is there.

    Args:
        target: the retriever's folder.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.training")

    def read(self, name: str) -> bytes | None:
        """Return a file that was written whole, or None."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that a kill leaves the old one or the new one.

        Raises:
            DataError: the disk is full or cannot be written to.
        """
        path = self.folder / name
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def embed(
        self,
        embedder: Embedder,
        texts: Sequence[str],
        *,
        role: Role,
        key: str,
        advance: Callable[[str], None],
    ) -> FloatArray:
        """Return unit rows (n, d); those that an earlier run computed are read from disk.

        Args:
            embedder: what computes them.
            texts: n of them.
            role: what they are.
            key: identifies embedder and texts.
            advance: is called for each of the `parts`.
        """
        parts = []
        for i, start in enumerate(range(0, len(texts), _TEXTS_AT_ONCE)):
            name = f"{role}-{key[:16]}/{i:05}.npy"
            some = texts[start : start + _TEXTS_AT_ONCE]
            parts.append(self._part(name, len(some), lambda: embedder.embed(some, role=role)))  # noqa: B023
            advance(f"of {role}s")
        return np.concatenate(parts)

    @staticmethod
    def parts(texts: Sequence[str]) -> int:
        """Return in how many parts they are embedded."""
        return -(-len(texts) // _TEXTS_AT_ONCE)

    @contextmanager
    def published(self, names: Sequence[str]) -> Iterator[None]:
        """Move files to the retriever's folder, all or none; take them back after an error.

        Raises:
            DataError: the folder is there already, or cannot be written.
        """
        draft = self.folder / "draft"
        with disk(self.target):
            shutil.rmtree(draft, ignore_errors=True)  # what a killed run left
            draft.mkdir(parents=True)
            for name in names:
                shutil.copy2(self.folder / name, draft)
            draft.rename(self.target)
        try:
            yield
        except BaseException:
            self.target.rename(draft)
            raise

    def remove(self) -> None:
        """Drop what was kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self, name: str, rows: int, compute: Callable[[], FloatArray]) -> FloatArray:
        if (kept := self.read(name)) is not None:
            x: FloatArray = np.load(io.BytesIO(kept), allow_pickle=False)
            if len(x) == rows:
                return x
        x = compute()
        buffer = io.BytesIO()
        np.save(buffer, x, allow_pickle=False)
        self.write(name, buffer.getvalue())
        return x


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Say what a full or read-only disk means for a training."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another "
            "folder, then repeat the command: it goes on where it stopped"
        ) from error
