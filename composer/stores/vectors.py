"""Texts that one retriever has embedded, so that none is embedded twice.

A file per kind of vectors, ``<passage digest>.vectors``: a head, then records of one size, each
the sha256 of a text and its vector. Batches are appended; a kill tears at most the last record,
which the next run cuts off. Stores only index vectors from here, so an edit of the source costs
the texts that are new.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from composer.stores.disk import synced, writing
from experts_registry.errors import ArtefactError, ExpertReplyError
from experts_registry.types import FloatArray

__all__ = ["StoredRows", "Vectors", "text_key"]

_HEAD = struct.Struct("<8sII")  # what it is, version, dimensions
_MAGIC, _VERSION, _KEY = b"ECVECTOR", 1, 32
_SLICE = 8192  # records that are read at once
_OFF_UNIT = 1e-2  # how far from 1 the length of a row may be
_SPARE = 1000  # records of texts that are gone which are not worth a rewrite


def text_key(text: str) -> bytes:
    """Identify a text, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


class StoredRows:
    """Vectors on disk, as rows of an array."""

    def __init__(self, records: NDArray[Any], rows: NDArray[np.int64], dimensions: int) -> None:
        self._records, self._rows = records, rows
        self.shape = (len(rows), dimensions)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> FloatArray:
        x: FloatArray = self._records["x"][self._rows[chosen]]
        return x


class Vectors:
    """The vectors of texts, each safe once it is added. One process may hold a file."""

    _file: BinaryIO

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dimensions = 0  # until the first batch tells
        self._rows: dict[bytes, int] = {}
        self._count = 0

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Hold a file for reading and adding.

        Raises:
            ArtefactError: it is something else.
            DataError: it cannot be written.
        """
        vectors = cls(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            vectors._read()
            vectors._file = path.open("ab", buffering=0)
        try:
            yield vectors
        finally:
            vectors._file.close()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def add(self, keys: Sequence[bytes], x: FloatArray) -> None:
        """Append the vectors of a batch, (n, d); they are on disk when this returns.

        Raises:
            ExpertReplyError: they are not one finite unit row per text.
            ArtefactError: they have other dimensions than those before.
        """
        x = np.ascontiguousarray(x, dtype="<f4")
        if x.ndim != 2 or len(x) != len(keys) or not x.shape[1] or not _is_unit(x).all():
            raise ExpertReplyError(
                f"{self.path}: the retriever gave an array of shape {x.shape} for {len(keys)} "
                "texts, or rows that are not finite and of length 1; mend its backend"
            )
        with writing(self.path):
            if not self.dimensions:
                self.dimensions = x.shape[1]
                self._write(_HEAD.pack(_MAGIC, _VERSION, self.dimensions))
            if x.shape[1] != self.dimensions:
                raise ArtefactError(
                    f"{self.path}: holds vectors of {self.dimensions} dimensions, the retriever "
                    f"now gives {x.shape[1]} under the same digest; delete this file"
                )
            records = np.empty(len(keys), dtype=self._record)
            records["key"] = np.frombuffer(b"".join(keys), dtype=f"V{_KEY}")
            records["x"] = x
            self._write(records.tobytes())
            os.fsync(self._file.fileno())
        for key in keys:
            self._rows[key] = self._count
            self._count += 1

    def of(self, keys: Sequence[bytes]) -> "StoredRows":
        """Return the vectors of texts, (n, d), which are read where they are asked for."""
        rows = np.fromiter((self._rows[key] for key in keys), np.int64, len(keys))
        return StoredRows(self._map(), rows, self.dimensions)

    def forget_all_but(self, keys: Sequence[bytes]) -> None:
        """Rewrite the file without texts that are gone, where they are most of it."""
        live = sorted({self._rows[key] for key in keys})
        if self._count <= 2 * len(live) + _SPARE:
            return
        partial = self.path.with_name(f"{self.path.name}.partial")
        with writing(partial):
            records = self._map()
            with partial.open("wb") as file:
                file.write(_HEAD.pack(_MAGIC, _VERSION, self.dimensions))
                for start in range(0, len(live), _SLICE):
                    file.write(records[live[start : start + _SLICE]].tobytes())
            synced(partial)
            partial.replace(self.path)

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _record(self) -> np.dtype[Any]:
        return np.dtype([("key", f"V{_KEY}"), ("x", "<f4", (self.dimensions,))])

    def _map(self) -> NDArray[Any]:
        return np.memmap(self.path, self._record, "r", offset=_HEAD.size, shape=(self._count,))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a raw file may take a part only
            view = view[self._file.write(view) :]

    def _read(self) -> None:
        """Learn what is there; cut off what a kill has torn."""
        size = self.path.stat().st_size
        if size < _HEAD.size:
            os.truncate(self.path, 0)
            return
        with self.path.open("rb") as file:
            magic, version, self.dimensions = _HEAD.unpack(file.read(_HEAD.size))
        if magic != _MAGIC or version != _VERSION or not self.dimensions:
            raise ArtefactError(f"{self.path}: holds no vectors of a store; move it away")
        width = self._record.itemsize
        self._count = (size - _HEAD.size) // width
        os.truncate(self.path, _HEAD.size + self._count * width)
        if self._count:
            self._learn(self._map())

    def _learn(self, records: NDArray[Any]) -> None:
        for start in range(0, self._count, _SLICE):
            part = records[start : start + _SLICE]
            # A power cut can leave zeros where a batch was on its way.
            for i in np.flatnonzero(_is_unit(part["x"])):
                self._rows[part["key"][i].tobytes()] = start + int(i)


def _is_unit(x: FloatArray) -> NDArray[np.bool_]:
    length = np.sqrt(np.einsum("ij,ij->i", x, x))
    with np.errstate(invalid="ignore"):
        is_unit: NDArray[np.bool_] = np.abs(length - 1) < _OFF_UNIT
    return is_unit
